"""The `explain_filters` task: the filters of a CNN's layer in words (LaViSE)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ltx_jax.data.concept_split import images_of_each
from ltx_jax.data.examples import Source, UnreadableImage
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.words import read_words
from ltx_jax.engine.filter_activations import quantile
from ltx_jax.engine.filter_passes import (
    IMAGES,
    Asked,
    Vocabulary,
    look_closer,
    strongest_of,
    words_of,
)
from ltx_jax.engine.sharding import replicate, slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainers.word_explainer import layer_shape
from ltx_jax.files import make_directory
from ltx_jax.loading.word_explainers import SavedWords, load_words
from ltx_jax.models.explainee import Explainee
from ltx_jax.reporting.filters import Explained, Told, write_filters
from ltx_jax.settings.sections import Settings, Words
from ltx_jax.tasks.concepts import among, names_of
from ltx_jax.tasks.inputs import class_names_of, open_explainee, open_source

# Of the activations of a filter over all images so many are outside of its region.
_QUANTILE = 0.995


def run(settings: Settings, workdir: Path) -> str:
    """Explain the filters of a configuration.

    Returns:
      A table of recalls.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    words = settings.words
    if words.checkpoint is None:
        raise InputError(
            "filters need a word network: set config.words.checkpoint to the words.safetensors of "
            "config.task=train_words"
        )
    explainee, source = open_explainee(settings, named=False), open_source(settings)
    names = names_of(source, class_names_of(settings))
    how = explainee.preprocessing(settings.resize)
    asked = asked_of(explainee, load_words(words.checkpoint), source, how, names, words)
    make_directory(workdir)
    found = explain_filters(asked, seed=settings.seed)

    def picture(number: int) -> Any:
        try:
            return source.load(number, how).as_picture()
        except UnreadableImage:
            return None

    return write_filters(workdir, found, told_of(asked), picture, settings.report.gallery)


def asked_of(
    explainee: Explainee,
    saved: SavedWords,
    source: Source,
    how: Preprocessing,
    names: Mapping[int, str],
    words: Words,
) -> Asked:
    """What is explained, by a word network and the vectors of its concepts.

    Args:
      explainee: the CNN.
      saved: the word network.
      source: images.
      how: they become inputs.
      names: of their labels.
      words: the section.

    Raises:
      InputError: where the network reads another layer, or the embedding has another width or none
        of its concepts.
    """
    explainer, learnt = saved.explainer, saved.learnt
    if words.vectors is None:
        raise InputError("no word vectors: set config.words.vectors to an embedding's file")
    if words.layer not in (None, explainer.layer):
        raise InputError(
            f"the word network is for the layer {explainer.layer}, and config.words.layer is "
            f"{words.layer}: leave that out, or train another"
        )
    if saved.explainee != explainee.name:
        logging.warning("the word network was trained for %s", saved.explainee)
    concepts = (*learnt.supervised, *learnt.unseen)
    every = tuple(dict.fromkeys((*names.values(), *concepts)))
    known = among(read_words(words.vectors, every, explainer.module.width), concepts, words.vectors)
    vocabulary = Vocabulary(
        known.names,
        known.vectors,
        np.array([name in learnt.supervised for name in known.names]),
        {k: known.names.index(name) for k, name in names.items() if name in known.names},
    )
    return Asked(explainee, explainer, source, how, vocabulary, words)


def told_of(asked: Asked) -> Told:
    """What things are called."""
    words = asked.vocabulary.names, asked.vocabulary.supervised
    return Told(asked.explainee.name, asked.explainer.layer, asked.source.names, *words)


def explain_filters(asked: Asked, seed: int = 0) -> Explained:
    """Words for filters, from one pass over the images and a second one over those where they fire
    most.

    Args:
      asked: what is explained, and by what.
      seed: of the random words that recalls are compared with.

    Raises:
      InputError: for a layer or filters that are not there, or no image that can be read.
    """
    chosen = _chosen(asked)
    mesh = slot_mesh(IMAGES)
    asked = asked._replace(
        explainee=replicate(asked.explainee, mesh), explainer=replicate(asked.explainer, mesh)
    )
    if not asked.source.has_masks or not any(asked.source.labels):
        logging.warning("the images have no annotations: words are found, and no recall is known")
    strongest = strongest_of(asked, chosen, mesh)
    thresholds = quantile(strongest.counts, _QUANTILE)
    looked = look_closer(asked, chosen, strongest, thresholds, mesh)
    ranks, weights = words_of(asked, looked.points, strongest.values)
    if silent := [int(f) for f in chosen[~(strongest.values[:, 0] > 0)]]:
        some = ", ".join(map(str, silent[:5])) + (" …" if len(silent) > 5 else "")
        logging.warning("%d filters never fire, and have no words: %s", len(silent), some)
    labels = [asked.vocabulary.places_of(several) for several in asked.source.labels]
    return Explained(
        filters=chosen,
        thresholds=thresholds,
        images=strongest.images,
        values=strongest.values,
        fired=looked.fired,
        overlaps=looked.overlaps,
        truth=looked.truth,
        words=ranks,
        weights=weights,
        frequent=images_of_each(labels, len(asked.vocabulary.names)),
        seed=seed,
    )


def _chosen(asked: Asked) -> Int[np.ndarray, " f"]:
    """Numbers of the filters, ascending.

    Raises:
      InputError: where the layer is another one, or has not so many.
    """
    *_, channels = layer_shape(asked.explainee, asked.explainer.layer)
    expected = asked.explainer.trained["params/dense1/kernel"].shape[0]
    if channels != expected:
        raise InputError(
            f"{asked.explainer.layer} of {asked.explainee.name} has {channels} filters, and the "
            f"word network is for {expected}: give the explainee that it was trained for"
        )
    chosen = np.array(sorted({*asked.words.filters}) or range(channels), np.int32)
    if chosen[-1] >= channels:
        raise InputError(
            f"config.words.filters has {chosen[-1]}: {asked.explainer.layer} of "
            f"{asked.explainee.name} has filters 0 to {channels - 1}"
        )
    return chosen
