"""What stands for filters in images, as points among word vectors, and where they fire there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.sharding import Mesh

from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device
from ltx_jax.explainers.filter_words import masked_features, masked_images, projected, regions
from ltx_jax.explainers.word_explainer import WordExplainer
from ltx_jax.metrics.filter_recall import overlaps
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import as_input


class Looked(NamedTuple):
    """A batch of n images, on every device.

    Attributes:
      images: [n,H,W,C], uint8 or in [0,1].
      features: the layer's, [n,g,h,c].
      masks: bool [n,k,H,W], the pixels of k concepts of each image.
      colour: [C] of what is hidden of an image.
    """

    images: Any
    features: Any
    masks: Any
    colour: Any


class Pairs(NamedTuple):
    """Filters in images of a batch, [m] each: the place of the image, the filter's number in its
    layer, and the threshold of its activation."""

    image: Any
    filter: Any
    threshold: Any


class Pointed(NamedTuple):
    """What is found of m pairs.

    Attributes:
      points: [m,width] among word vectors.
      fired: [m,g,h] the filter's activations.
      overlaps: [m,k] of the filter's region with each concept of the image, in [0,1].
    """

    points: Any
    fired: Any
    overlaps: Any


class _Fired(NamedTuple):
    """One filter in one image: the image [H,W,C] in [0,1], its features [g,h,c], the filter's
    activations [g,h], their threshold, and the colour [C] of what is hidden."""

    image: Any
    features: Any
    activations: Any
    threshold: Any
    colour: Any


# Pooled features [c] for one filter in one image.
Stand = Callable[[Explainee, WordExplainer, _Fired], Array]


def _projection(explainee: Explainee, explainer: WordExplainer, one: _Fired) -> Array:
    return projected(one.features[None], one.activations[None])[0]


def _masked_features(explainee: Explainee, explainer: WordExplainer, one: _Fired) -> Array:
    return masked_features(one.features[None], one.activations[None], one.threshold)[0]


def _masked_image(explainee: Explainee, explainer: WordExplainer, one: _Fired) -> Array:
    seen = masked_images(one.image[None], one.activations[None], one.threshold, one.colour)
    return explainer.features(explainee, seen).mean((0, 1, 2))


def _image(explainee: Explainee, explainer: WordExplainer, one: _Fired) -> Array:
    return one.features.mean((0, 1))


STANDS: dict[str, Stand] = {
    "projection": _projection,
    "masked_features": _masked_features,
    "masked_image": _masked_image,
    "image": _image,
}


@partial(jax.jit, static_argnames="mesh")
def features_of(explainee: Explainee, explainer: WordExplainer, images: Any, mesh: Mesh) -> Array:
    """The layer's features of images [n,H,W,C], uint8 or in [0,1], n a multiple of the number of
    devices."""

    def of_share(explainee: Explainee, explainer: WordExplainer, images: Array) -> Array:
        return explainer.features(explainee, as_input(images))

    specs = (REPLICATED, REPLICATED, SPLIT)
    return on_each_device(of_share, mesh, specs, SPLIT)(explainee, explainer, images)


@partial(jax.jit, static_argnames=("stands", "mesh"))
def pointed(
    explainee: Explainee,
    explainer: WordExplainer,
    looked: Looked,
    pairs: Pairs,
    stands: str,
    mesh: Mesh,
) -> Pointed:
    """Points of filters in the images of a batch.

    Args:
      explainee: the CNN.
      explainer: the network.
      looked: the batch.
      pairs: m of them, a multiple of the number of devices.
      stands: a key of `STANDS`.
      mesh: the devices, which share the pairs.
    """

    def of_share(
        explainee: Explainee, explainer: WordExplainer, looked: Looked, pairs: Pairs
    ) -> Pointed:
        features = looked.features[pairs.image]
        fired = looked.features[pairs.image, :, :, pairs.filter]
        images = as_input(looked.images)[pairs.image]
        each = _Fired(images, features, fired, pairs.threshold, looked.colour)
        pooled = jax.vmap(
            lambda one: STANDS[stands](explainee, explainer, one), (_Fired(0, 0, 0, 0, None),)
        )(each)

        def overlapping(one: tuple[Array, Array, Array]) -> Array:
            fired, threshold, image = one
            region = regions(fired[None], threshold, images.shape[1:3])
            return overlaps(region, looked.masks[image][None])[0]

        found = jax.lax.map(overlapping, (fired, pairs.threshold, pairs.image))
        return Pointed(explainer.points(pooled), fired, found)

    specs = (REPLICATED, REPLICATED, REPLICATED, SPLIT)
    return on_each_device(of_share, mesh, specs, SPLIT)(explainee, explainer, looked, pairs)
