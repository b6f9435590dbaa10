"""Where filters fire, seen in one pass over images of any number: of each filter its greatest
activations, and how all of them are distributed. Nothing grows with the images."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float32, Int32, Int64

from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device, place
from ltx_jax.explainers.word_explainer import WordExplainer
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import as_input

# A quantile is within this share of the true one.
ERROR = 0.01
# Activations from which on, and up to which, that holds; those below count as 0.
_LEAST, _MOST = 1e-6, 1e6
_GROWTH = math.log((1 + ERROR) / (1 - ERROR))
_BINS = math.ceil(math.log(_MOST / _LEAST) / _GROWTH) + 1
# No image; and how strongly a filter fires in it.
NO_IMAGE, _NOTHING = -1, -jnp.inf


class Seen(NamedTuple):
    """What each of d devices knows of f filters.

    Attributes:
      values: [d,f,p] the greatest activations, an image's greatest each, in descending order.
      images: [d,f,p] the numbers of these images; `NO_IMAGE` where there are fewer.
      counts: [d,f,bins] how many activations there are of each size; up to 2³² of a filter.
    """

    values: Any
    images: Any
    counts: Any


class Strongest(NamedTuple):
    """Where f filters fire most.

    Attributes:
      values: greatest activations in p images, in descending order; −∞ where there are fewer.
      images: their numbers; `NO_IMAGE` where there are fewer.
      counts: of activations by size, see `quantile`.
    """

    values: Float32[np.ndarray, "f p"]
    images: Int32[np.ndarray, "f p"]
    counts: Int64[np.ndarray, "f bins"]


def nothing_seen(filters: int, images: int, mesh: Mesh) -> Seen:
    """Before the first image.

    Args:
      filters: how many there are.
      images: p, how many of each are kept.
      mesh: the devices.
    """
    shape = mesh.size, filters, images
    seen = Seen(
        np.full(shape, _NOTHING, np.float32),
        np.full(shape, NO_IMAGE, np.int32),
        np.zeros((mesh.size, filters, _BINS), np.uint32),
    )
    return place(seen, mesh)


@partial(jax.jit, donate_argnames="seen", static_argnames="mesh")
def see(
    seen: Seen,
    explainee: Explainee,
    explainer: WordExplainer,
    filters: Any,
    images: Any,
    numbers: Any,
    mesh: Mesh,
) -> Seen:
    """Look at some more images.

    Args:
      seen: donated.
      explainee: the CNN.
      explainer: says the layer.
      filters: [f] their numbers in it.
      images: [n,H,W,C], uint8 or in [0,1], n a multiple of the number of devices.
      numbers: [n] of these images; `NO_IMAGE` for one that only fills up.
      mesh: the devices.
    """

    def of_share(
        seen: Seen,
        explainee: Explainee,
        explainer: WordExplainer,
        filters: Array,
        images: Array,
        numbers: Array,
    ) -> Seen:
        features = explainer.features(explainee, as_input(images))[..., filters]
        here = numbers != NO_IMAGE
        greatest = jnp.where(here, features.max((1, 2)).T, _NOTHING)
        values = jnp.concatenate([seen.values[0], greatest], axis=1)
        which = jnp.broadcast_to(numbers, greatest.shape)
        known = jnp.concatenate([seen.images[0], which], axis=1)
        values, places = jax.lax.top_k(values, seen.values.shape[-1])
        bins = _bins(features)
        one = jnp.broadcast_to(here[:, None, None, None], bins.shape).astype(jnp.uint32)
        rows = jnp.broadcast_to(jnp.arange(len(filters), dtype=jnp.int32), bins.shape)
        counts = seen.counts[0].at[rows, bins].add(one)
        found = Seen(values, jnp.take_along_axis(known, places, axis=1), counts)
        return jax.tree.map(lambda x: x[None], found)

    specs = (SPLIT, REPLICATED, REPLICATED, REPLICATED, SPLIT, SPLIT)
    given = seen, explainee, explainer, filters, images, numbers
    return on_each_device(of_share, mesh, specs, SPLIT)(*given)


def gathered(seen: Seen) -> Strongest:
    """What all devices know together; of images where a filter fires alike, the first."""
    values, images, counts = jax.device_get(seen)
    kept = values.shape[-1]
    values, images = (np.concatenate(list(of_each), axis=1) for of_each in (values, images))
    order = np.lexsort((images, -values), axis=1)[:, :kept]
    values, images = (np.take_along_axis(x, order, axis=1) for x in (values, images))
    return Strongest(values, images, counts.sum(0, dtype=np.int64))


def quantile(counts: Int64[np.ndarray, "f bins"], share: float) -> Float32[np.ndarray, " f"]:
    """Of each filter the activation that a share of them do not exceed, within `ERROR` of its size;
    0 where it is below 10⁻⁶.

    Args:
      counts: of activations, by the bin of their size; bins grow by a constant factor.
      share: in (0,1).

    Source: DDSketch, Masson, Rim and Lee, VLDB 2019 (arXiv 1908.10693).
    """
    reached = counts.cumsum(1) >= share * counts.sum(1, keepdims=True)
    bins = reached.argmax(1)
    # What is equally far, by its share, from both ends of a bin.
    middle = _LEAST * np.exp(bins * _GROWTH) * (1 - ERROR)
    return np.where(bins > 0, middle, 0).astype(np.float32)


def _bins(activations: Array) -> Array:
    """The bin of each: 0 up to `_LEAST`; i from exp((i − 1)·growth) to exp(i·growth) times it."""
    powers = jnp.log(jnp.maximum(activations, _LEAST) / _LEAST) / _GROWTH
    return jnp.clip(jnp.ceil(powers), 0, _BINS - 1).astype(jnp.int32)
