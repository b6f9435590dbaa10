"""The two passes over images that filters are explained by, and the words that they come to."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, Int

from ltx_jax.data.examples import Example, Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.filter_activations import NO_IMAGE, Strongest, gathered, nothing_seen, see
from ltx_jax.engine.filter_points import Looked, Pairs, features_of, pointed
from ltx_jax.engine.scoring import padded
from ltx_jax.engine.sharding import place, replicate, to_host
from ltx_jax.errors import InputError
from ltx_jax.explainers.filter_words import FilterWords, weighted_words
from ltx_jax.explainers.word_explainer import WordExplainer, layer_shape
from ltx_jax.explainers.word_network import cosines
from ltx_jax.metrics.filter_recall import LEAST_OVERLAP
from ltx_jax.models.explainee import Explainee
from ltx_jax.progress import progress_bar
from ltx_jax.settings.sections import Words

# Images, and filters in images, that go to the devices at once; and filters whose words do.
IMAGES, _PAIRS, _FILTERS = 32, 64, 64


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

    def places_of(self, labels: Sequence[int]) -> list[int]:
        """Places among the words of those labels that are words."""
        return [self.places[k] for k in labels if k in self.places]


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


def strongest_of(asked: Asked, chosen: np.ndarray, mesh: Mesh) -> Strongest:
    """The pass over all images.

    Args:
      asked: what is explained, and by what; its networks on every device.
      chosen: [f] the filters' numbers in the layer.
      mesh: the devices.

    Raises:
      InputError: where none can be read.
    """
    seen, some = nothing_seen(len(chosen), asked.words.strongest, mesh), False
    filters = replicate(chosen, mesh)
    for numbers, batch in _batches(asked, range(len(asked.source)), _size(IMAGES, mesh)):
        filled = _filled(numbers, _size(IMAGES, mesh), NO_IMAGE)
        given = place((_pixels(batch, len(filled)), filled), mesh)
        seen = see(seen, asked.explainee, asked.explainer, filters, *given, mesh)
        some = True
    if not some:
        raise InputError(f"none of {len(asked.source)} images can be read: give others")
    return gathered(seen)


class Closer(NamedTuple):
    """Of f filters in p images each: points, activations, whether they fire on each word's concept,
    and of each word the sum of overlaps."""

    points: Float32[np.ndarray, "f p width"]
    fired: Float32[np.ndarray, "f p g h"]
    truth: Bool[np.ndarray, "f p words"]
    overlaps: Float32[np.ndarray, "f words"]


def look_closer(
    asked: Asked, chosen: np.ndarray, strongest: Strongest, thresholds: np.ndarray, mesh: Mesh
) -> Closer:
    """The pass over the images where filters fire most.

    Args:
      asked, chosen, mesh: those of the first pass.
      strongest: what that has found.
      thresholds: [f] of activations.
    """
    height, width, _ = layer_shape(asked.explainee, asked.explainer.layer)
    filters, images = strongest.images.shape
    vectors = asked.vocabulary.vectors
    closer = Closer(
        np.zeros((filters, images, vectors.shape[1]), np.float32),
        np.zeros((filters, images, height, width), np.float32),
        np.zeros((filters, images, len(vectors)), bool),
        np.zeros((filters, len(vectors)), np.float32),
    )
    # By image, which filters fire there: (row, slot) each.
    where: dict[int, list[tuple[int, int]]] = {}
    for row, slot in zip(*np.nonzero(strongest.values > 0), strict=True):
        where.setdefault(int(strongest.images[row, slot]), []).append((int(row), int(slot)))
    most = max(len(asked.vocabulary.places_of(labels)) for labels in asked.source.labels) or 1
    for numbers, batch in _batches(asked, sorted(where), _size(IMAGES, mesh)):
        looked = _looked(asked, batch, most, mesh)
        wanted = [(k, row, slot) for k, number in enumerate(numbers) for row, slot in where[number]]
        for first in range(0, len(wanted), _size(_PAIRS, mesh)):
            some = wanted[first : first + _size(_PAIRS, mesh)]
            _point(asked, closer, looked, some, (chosen, thresholds), batch, mesh)
    return closer


def _point(
    asked: Asked,
    closer: Closer,
    looked: Looked,
    some: list[tuple[int, int, int]],
    of_filters: tuple[np.ndarray, np.ndarray],
    batch: list[Example],
    mesh: Mesh,
) -> None:
    """Enter what is found of some filters in images: (place in the batch, row, slot) each."""
    chosen, thresholds = of_filters
    size = _size(_PAIRS, mesh)
    places = _filled([k for k, *_ in some], size, 0)
    rows = _filled([row for _, row, _ in some], size, 0)
    pairs = place(Pairs(places, chosen[rows], thresholds[rows]), mesh)
    how = asked.words.stands, mesh
    found = to_host(pointed(asked.explainee, asked.explainer, looked, pairs, *how))
    for i, (k, row, slot) in enumerate(some):
        closer.points[row, slot], closer.fired[row, slot] = found.points[i], found.fired[i]
        if batch[k].masks is not None:
            words = asked.vocabulary.places_of(batch[k].labels)
            for overlap, word in zip(found.overlaps[i], words, strict=False):
                closer.truth[row, slot, word] |= overlap > LEAST_OVERLAP
                closer.overlaps[row, word] += overlap


def _looked(asked: Asked, batch: list[Example], most: int, mesh: Mesh) -> Looked:
    """A batch on every device, with the masks of so many concepts at most."""
    size = _size(IMAGES, mesh)
    pixels = _pixels(batch, size)
    masks = np.zeros((size, most, *pixels.shape[1:3]), bool)
    for row, example in zip(masks, batch, strict=False):
        if example.masks is not None:
            kept = [k in asked.vocabulary.places for k in example.labels]
            row[: sum(kept)] = example.masks[kept]
    features = features_of(asked.explainee, asked.explainer, place(pixels, mesh), mesh)
    colour = np.array(asked.explainee.mean_colour, np.float32)
    return replicate(Looked(pixels, features, masks, colour), mesh)


def words_of(
    asked: Asked,
    points: Float32[np.ndarray, "f p width"],
    values: Float32[np.ndarray, "f p"],
) -> tuple[Int[np.ndarray, "f words"], Float32[np.ndarray, "f words"]]:
    """Words of each filter, the heaviest first, and their weights.

    Args:
      asked: what is explained, and by what.
      points: of each filter in its images.
      values: its greatest activations there.
    """
    vectors, handicap = jnp.asarray(asked.vocabulary.vectors), asked.words.handicap
    given = jnp.asarray(points), jnp.asarray(values)
    # How much less near each word counts than its cosine says.
    behind = jnp.zeros(len(vectors), jnp.float32)
    if handicap is not None:
        # Where a filter does not fire its point is 0, and so are its cosines.
        fired = jnp.maximum((given[1] > 0).sum(dtype=jnp.float32), 1)
        supervised = jnp.asarray(asked.vocabulary.supervised, jnp.float32)
        behind = _summed_cosines(given[0], vectors) / fired + handicap * supervised
    found = _weighted_words(*given, vectors, behind, asked.words.nearest)
    return np.asarray(found.words), np.asarray(found.weights)


@jax.jit
def _summed_cosines(points: Array, vectors: Array) -> Array:
    of_each = jax.lax.map(lambda one: cosines(one, vectors).sum(0), points, batch_size=_FILTERS)
    return of_each.sum(0)


@partial(jax.jit, static_argnames="nearest")
def _weighted_words(
    points: Array, values: Array, vectors: Array, behind: Array, nearest: int
) -> FilterWords:
    return jax.lax.map(
        lambda one: weighted_words(cosines(one[0], vectors) - behind[None], one[1], nearest),
        (points, values),
        batch_size=_FILTERS,
    )


def _size(least: int, mesh: Mesh) -> int:
    """So many, or as many more as the devices need to share them."""
    return -(-least // mesh.size) * mesh.size


def _filled(numbers: Sequence[int], size: int, filler: int) -> np.ndarray:
    return np.array([*numbers, *[filler] * (size - len(numbers))], np.int32)


def _pixels(batch: list[Example], size: int) -> np.ndarray:
    """Images of a batch, filled up with its last."""
    return padded(np.stack([example.image for example in batch]), size)
