"""A CNN's filter in words (LaViSE): what stands for it in an image, and the words near that.

Of one filter, and of the images where it fires most; `vmap` makes it of many filters. `fired` are
the filter's own activations in each image. A filter that never fires has features of 0, and words
of weight 0.

Source: Yang et al., "Explaining Deep Convolutional Neural Networks via Latent Visual-Semantic
Filter Attention", CVPR 2022 (arXiv 2204.04601); the original's `infer_filter.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from ltx_jax.masks.covering import covered
from ltx_jax.masks.tokens import Size, upsample

Features = Float[Array, "n g h c"]
Fired = Float[Array, "n g h"]


class FilterWords(NamedTuple):
    """Words by their weight, the heaviest first.

    Attributes:
      words: indices of all words, each once.
      weights: of these, in [0,1]; 0 for a word that is near to none of the images.
    """

    words: Int[Array, " words"]
    weights: Float[Array, " words"]


def pooled(features: Features, weights: Fired | Bool[Array, "n g h"]) -> Float[Array, "n c"]:
    """Mean over all positions of features times a weight; so objects are pooled in training, by
    their masks on the features' grid."""
    return (features * weights.astype(features.dtype)[..., None]).mean((1, 2))


def projected(features: Features, fired: Fired) -> Float[Array, "n c"]:
    """Features pooled by the filter's activations, of which each image's have a norm of 1: those
    of other filters that fire where it does are large."""
    norm = jnp.sqrt((fired**2).sum((1, 2), keepdims=True))
    return pooled(features, jnp.where(norm > 0, fired / jnp.where(norm > 0, norm, 1), 0))


def masked_features(
    features: Features, fired: Fired, threshold: Float[Array, ""]
) -> Float[Array, "n c"]:
    """Features pooled where the filter's activation is above a threshold."""
    return pooled(features, fired > threshold)


def regions(fired: Fired, threshold: Float[Array, ""], size: Size) -> Bool[Array, "n H W"]:
    """Pixels of images of that size where the filter's activation, enlarged bilinearly, is above a
    threshold."""
    return upsample(fired, size) > threshold


def masked_images(
    images: Float[Array, "n H W C"],
    fired: Fired,
    threshold: Float[Array, ""],
    colour: Float[Array, " C"],
) -> Float[Array, "n H W C"]:
    """Images of which the filter's regions are left.

    Args:
      images: in [0,1].
      fired: of the filter.
      threshold: of its activation.
      colour: of the rest; the explainee's mean colour as in the original, which masks images that
        are normalised already.
    """
    seen = regions(fired, threshold, images.shape[1:3])
    return covered(images, seen, jnp.broadcast_to(colour, images.shape[1:])[None])


def weighted_words(
    cosines: Float[Array, "n words"], strengths: Float[Array, " n"], nearest: int
) -> FilterWords:
    """Words that lie nearest to a filter's representations, each image's as heavy as the filter
    fires in it.

    A word's weight is the share of all strengths that those images have to which it is near. Words
    of one weight, as all are that are near to the same images, go by their cosines there; the
    original, which rounds strengths down to whole numbers, leaves their order open.

    Args:
      cosines: of what stands for the filter in each image, with each word; or any such nearness.
      strengths: the filter's greatest activation in each image; those below 0 count as 0.
      nearest: how many words of each image count.
    """
    count = cosines.shape[1]
    strengths = jnp.maximum(strengths, 0)
    _, which = jax.lax.top_k(cosines, min(nearest, count))
    rows = jnp.arange(len(cosines))[:, None]
    near = jnp.zeros(cosines.shape, bool).at[rows, which].set(True)
    heavy = jnp.where(near, strengths[:, None], 0)
    total = strengths.sum()
    weights = heavy.sum(0) / jnp.where(total > 0, total, 1)
    order = jnp.lexsort((-(heavy * cosines).sum(0), -weights))
    return FilterWords(order, weights[order])
