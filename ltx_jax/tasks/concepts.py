"""Which labels are concepts with a word vector, and which of these are learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from ltx_jax.data.concept_split import images_of_each, split_concepts
from ltx_jax.data.examples import Source, label_names
from ltx_jax.data.words import Words as Vectors
from ltx_jax.data.words import read_words
from ltx_jax.errors import InputError
from ltx_jax.loading.word_explainers import Learnt
from ltx_jax.settings.sections import Words


class Concepts(NamedTuple):
    """What is learnt.

    Attributes:
      learnt: names.
      vectors: of the supervised concepts, in their order.
      places: of each label that is supervised its place among them.
      unseen: labels of those that are left to be discovered.
    """

    learnt: Learnt
    vectors: Float32[np.ndarray, "supervised width"]
    places: Mapping[int, int]
    unseen: frozenset[int]


def names_of(source: Source, class_names: Sequence[str]) -> dict[int, str]:
    """What the labels of a source are called, by the label; those of a person first."""
    return dict(enumerate(class_names)) or dict(label_names(source))


def among(known: Vectors, names: Sequence[str], path: str) -> Vectors:
    """Those of some names.

    Args:
      known: vectors of all names that have one.
      names: which are asked for.
      path: of the embedding, for the message.

    Raises:
      InputError: where none of them has a vector.
    """
    rows = [row for row, name in enumerate(known.names) if name in names]
    if not rows:
        raise InputError(
            f"{path} has a vector for none of {len(names)} concepts: give an embedding in their "
            "language, or one with their names"
        )
    return Vectors(tuple(known.names[row] for row in rows), known.vectors[rows])


def concepts_of(
    source: Source,
    training: Sequence[int],
    names: Mapping[int, str],
    words: Words,
    seed: int,
) -> Concepts:
    """Choose the concepts of a training.

    Args:
      source: of all images.
      training: numbers of those to train on, in which a concept has to be.
      names: of labels.
      words: the section.
      seed: of which concepts are supervised.

    Raises:
      InputError: where labels, masks or names are missing, or the embedding has none of the words.
    """
    if not any(source.labels[i] for i in training):
        raise InputError(
            "no image to train on has an annotation: give images with labels and masks, e.g. "
            "config.dataset=coco with config.labels=classes"
        )
    if not source.has_masks:
        raise InputError(
            "the images have labels, and no masks that say where: give a data set that has them, "
            "e.g. config.dataset=coco with config.labels=classes"
        )
    there = sorted({label for i in training for label in source.labels[i]})
    if unnamed := [label for label in there if label not in names]:
        raise InputError(
            f"nobody says what the label {unnamed[0]} is called: give config.class_names"
        )
    if words.vectors is None:
        raise InputError("no word vectors: set config.words.vectors to an embedding's file")
    # All names, not only those that are there: vectors without words are in the order of all.
    every = read_words(words.vectors, tuple(dict.fromkeys(names.values())))
    known = among(every, [names[label] for label in there], words.vectors)
    counts = images_of_each((source.labels[i] for i in training), max(there) + 1)
    named = [label for label in there if names[label] in known.names]
    counts[np.setdiff1d(np.arange(len(counts)), named)] = 0
    parts = split_concepts(counts, words.supervised, seed, words.least)
    learnt = Learnt(*(tuple(dict.fromkeys(names[k] for k in part.tolist())) for part in parts))
    rows = [known.names.index(name) for name in learnt.supervised]
    places = {k: learnt.supervised.index(names[k]) for k in parts.supervised.tolist()}
    return Concepts(learnt, known.vectors[rows], places, frozenset(parts.unseen.tolist()))
