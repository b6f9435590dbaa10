"""The `explain_filters` task: the filters of a CNN's layer in words (LaViSE)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Float32, Int

from ltx_jax.data.concept_split import images_of_each
from ltx_jax.data.examples import Example, Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.words import read_words
from ltx_jax.engine.filter_activations import (
    NO_IMAGE,
    Strongest,
    gathered,
    nothing_seen,
    quantile,
    see,
)
from ltx_jax.engine.filter_points import Looked, Pairs, features_of, pointed
from ltx_jax.engine.scoring import padded
from ltx_jax.engine.sharding import place, replicate, slot_mesh, to_host
from ltx_jax.errors import InputError
from ltx_jax.explainers.filter_words import FilterWords, weighted_words
from ltx_jax.explainers.word_explainer import WordExplainer, layer_shape
from ltx_jax.explainers.word_network import cosines
from ltx_jax.files import make_directory
from ltx_jax.loading.word_explainers import SavedWords, load_words
from ltx_jax.metrics.filter_recall import LEAST_OVERLAP
from ltx_jax.models.explainee import Explainee
from ltx_jax.progress import progress_bar
from ltx_jax.reporting.filters import Explained, Told, write_filters
from ltx_jax.settings.sections import Settings, Words
from ltx_jax.tasks.concepts import among, names_of
from ltx_jax.tasks.inputs import class_names_of, open_explainee, open_source

# Of the activations of a filter over all images so many are outside of its region.
_QUANTILE = 0.995
# Images, and filters in images, that go to the devices at once; and filters whose words do.
_IMAGES, _PAIRS, _FILTERS = 32, 64, 64


@dataclass(frozen=True)
class Vocabulary:
    """Words that filters are explained by; all of them are concepts.

    Attributes:
      names: of the words.
      vectors: of these.
      supervised: which of them the network was told of.
      places: of each label of the images its place among the words.
    """

    names: tuple[str, ...]
    vectors: Float32[np.ndarray, "words width"]
    supervised: Bool[np.ndarray, " words"]
    places: Mapping[int, int]


class Asked(NamedTuple):
    """What is explained, and by what.

    Attributes:
      explainee: the CNN.
      explainer: the word network.
      source: of all images.
      how: they become inputs.
      vocabulary: of words.
      words: the section.
    """

    explainee: Explainee
    explainer: WordExplainer
    source: Source
    how: Preprocessing
    vocabulary: Vocabulary
    words: Words


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
    mesh = slot_mesh(_IMAGES)
    asked = asked._replace(
        explainee=replicate(asked.explainee, mesh), explainer=replicate(asked.explainer, mesh)
    )
    if not asked.source.has_masks or not any(asked.source.labels):
        logging.warning("the images have no annotations: words are found, and no recall is known")
    strongest = _strongest(asked, chosen, mesh)
    thresholds = quantile(strongest.counts, _QUANTILE)
    looked = _look_closer(asked, chosen, strongest, thresholds, mesh)
    ranks, weights = _words(asked, strongest, looked.points)
    if silent := [int(f) for f in chosen[~(strongest.values[:, 0] > 0)]]:
        some = ", ".join(map(str, silent[:5])) + (" …" if len(silent) > 5 else "")
        logging.warning("%d filters never fire, and have no words: %s", len(silent), some)
    labels = [_concepts(asked, several) for several in asked.source.labels]
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


def _batches(
    asked: Asked, numbers: Sequence[int], size: int
) -> Iterator[tuple[list[int], list[Example]]]:
    """Images that can be read, so many at once, with their numbers."""
    batch: list[tuple[int, Example]] = []
    with progress_bar(len(numbers), "images", "filters") as bar:
        for i, example in iterate(asked.source, asked.how, numbers, ahead=2 * size):
            bar.update()
            if isinstance(example, UnreadableImage):
                logging.warning("skipped %s: %s", asked.source.names[i], example)
                continue
            batch.append((i, example))
            if len(batch) == size:
                yield [i for i, _ in batch], [one for _, one in batch]
                batch = []
    if batch:
        yield [i for i, _ in batch], [one for _, one in batch]


def _strongest(asked: Asked, chosen: np.ndarray, mesh: Mesh) -> Strongest:
    """The pass over all images.

    Raises:
      InputError: where none can be read.
    """
    seen, some = nothing_seen(len(chosen), asked.words.strongest, mesh), False
    filters = replicate(chosen, mesh)
    for numbers, batch in _batches(asked, range(len(asked.source)), _size(_IMAGES, mesh)):
        filled = _filled(numbers, _size(_IMAGES, mesh), NO_IMAGE)
        given = place((_pixels(batch, len(filled)), filled), mesh)
        seen = see(seen, asked.explainee, asked.explainer, filters, *given, mesh)
        some = True
    if not some:
        raise InputError(f"none of {len(asked.source)} images can be read: give others")
    return gathered(seen)


class _Closer(NamedTuple):
    """Of f filters in p images each: points, activations, whether they fire on each word's concept,
    and of each word the sum of overlaps."""

    points: Float32[np.ndarray, "f p width"]
    fired: Float32[np.ndarray, "f p g h"]
    truth: Bool[np.ndarray, "f p words"]
    overlaps: Float32[np.ndarray, "f words"]


def _look_closer(
    asked: Asked, chosen: np.ndarray, strongest: Strongest, thresholds: np.ndarray, mesh: Mesh
) -> _Closer:
    """The pass over the images where filters fire most."""
    height, width, _ = layer_shape(asked.explainee, asked.explainer.layer)
    filters, images = strongest.images.shape
    vectors = asked.vocabulary.vectors
    closer = _Closer(
        np.zeros((filters, images, vectors.shape[1]), np.float32),
        np.zeros((filters, images, height, width), np.float32),
        np.zeros((filters, images, len(vectors)), bool),
        np.zeros((filters, len(vectors)), np.float32),
    )
    # By image, which filters fire there: (row, slot) each.
    where: dict[int, list[tuple[int, int]]] = {}
    for row, slot in zip(*np.nonzero(strongest.values > 0), strict=True):
        where.setdefault(int(strongest.images[row, slot]), []).append((int(row), int(slot)))
    most = max(len(_concepts(asked, labels)) for labels in asked.source.labels) or 1
    for numbers, batch in _batches(asked, sorted(where), _size(_IMAGES, mesh)):
        looked = _looked(asked, batch, most, mesh)
        wanted = [(k, row, slot) for k, number in enumerate(numbers) for row, slot in where[number]]
        for first in range(0, len(wanted), _size(_PAIRS, mesh)):
            some = wanted[first : first + _size(_PAIRS, mesh)]
            _point(asked, closer, looked, some, (chosen, thresholds), batch, mesh)
    return closer


def _point(
    asked: Asked,
    closer: _Closer,
    looked: Looked,
    some: list[tuple[int, int, int]],
    of_filters: tuple[np.ndarray, np.ndarray],
    batch: list[Example],
    mesh: Mesh,
) -> None:
    """Enter what is found of some filters in images: (place in the batch, row, slot) each."""
    chosen, thresholds = of_filters
    size = _size(_PAIRS, mesh)
    places = np.array(_filled([k for k, *_ in some], size, 0), np.int32)
    rows = np.array(_filled([row for _, row, _ in some], size, 0), np.int32)
    pairs = place(Pairs(places, chosen[rows], thresholds[rows]), mesh)
    how = asked.words.stands, mesh
    found = to_host(pointed(asked.explainee, asked.explainer, looked, pairs, *how))
    for i, (k, row, slot) in enumerate(some):
        closer.points[row, slot], closer.fired[row, slot] = found.points[i], found.fired[i]
        if batch[k].masks is not None:
            words = _concepts(asked, batch[k].labels)
            for overlap, word in zip(found.overlaps[i], words, strict=False):
                closer.truth[row, slot, word] |= overlap > LEAST_OVERLAP
                closer.overlaps[row, word] += overlap


def _concepts(asked: Asked, labels: Sequence[int]) -> list[int]:
    """Places among the words of those labels that are words."""
    return [asked.vocabulary.places[k] for k in labels if k in asked.vocabulary.places]


def _looked(asked: Asked, batch: list[Example], most: int, mesh: Mesh) -> Looked:
    """A batch on every device, with the masks of so many concepts at most."""
    size = _size(_IMAGES, mesh)
    pixels = _pixels(batch, size)
    masks = np.zeros((size, most, *pixels.shape[1:3]), bool)
    for row, example in zip(masks, batch, strict=False):
        if example.masks is not None:
            kept = [k in asked.vocabulary.places for k in example.labels]
            row[: sum(kept)] = example.masks[kept]
    features = features_of(asked.explainee, asked.explainer, place(pixels, mesh), mesh)
    colour = np.array(asked.explainee.mean_colour, np.float32)
    return replicate(Looked(pixels, features, masks, colour), mesh)


def _words(
    asked: Asked, strongest: Strongest, points: Float32[np.ndarray, "f p width"]
) -> tuple[Int[np.ndarray, "f words"], Float32[np.ndarray, "f words"]]:
    """Words of each filter, the heaviest first, and their weights."""
    vectors, nearest = jnp.asarray(asked.vocabulary.vectors), asked.words.nearest
    given = jnp.asarray(points), jnp.asarray(strongest.values)
    behind = _behind(asked, *given)

    @jax.jit
    def of_all(given: tuple[Array, Array]) -> FilterWords:
        return jax.lax.map(
            lambda one: weighted_words(cosines(one[0], vectors) - behind[None], one[1], nearest),
            given,
            batch_size=_FILTERS,
        )

    found = of_all(given)
    return np.asarray(found.words), np.asarray(found.weights)


def _behind(asked: Asked, points: Array, values: Array) -> Float[Array, " words"]:
    """How much less near each word counts than its cosine says."""
    handicap, vectors = asked.words.handicap, jnp.asarray(asked.vocabulary.vectors)
    if handicap is None:
        return jnp.zeros(len(vectors), jnp.float32)

    @jax.jit
    def summed(points: Array) -> Array:
        of_each = jax.lax.map(lambda one: cosines(one, vectors).sum(0), points, batch_size=_FILTERS)
        return of_each.sum(0)

    # Where a filter does not fire its point is 0, and so are its cosines.
    usual = summed(points) / jnp.maximum((values > 0).sum(dtype=jnp.float32), 1)
    return usual + handicap * jnp.asarray(asked.vocabulary.supervised, jnp.float32)


def _size(least: int, mesh: Mesh) -> int:
    """So many, or as many more as the devices need to share them."""
    return -(-least // mesh.size) * mesh.size


def _filled(numbers: Sequence[int], size: int, filler: int) -> np.ndarray:
    return np.array([*numbers, *[filler] * (size - len(numbers))], np.int32)


def _pixels(batch: list[Example], size: int) -> np.ndarray:
    """Images of a batch, filled up with its last."""
    return padded(np.stack([example.image for example in batch]), size)
