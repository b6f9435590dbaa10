"""Whether a filter's words name what it fires on (LaViSE): overlap with concepts, and recall.

Source: LaViSE, Yang et al., CVPR 2022 (arXiv 2204.04601).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

# A filter fires on a concept whose overlap with its region is greater.
LEAST_OVERLAP = 0.04
FIRST = (5, 10, 20)


def overlaps(
    regions: Bool[Array, "n H W"], concepts: Bool[Array, "n c H W"]
) -> Float[Array, "n c"]:
    """Intersection over union of a filter's region in each image with each concept's pixels there,
    in [0,1]; 0 of nothing with nothing."""
    regions = regions[:, None]
    both, either = ((regions & concepts), (regions | concepts))
    shared, whole = (pixels.sum((2, 3), dtype=jnp.float32) for pixels in (both, either))
    return shared / jnp.maximum(whole, 1)


def recall(
    words: Int[Array, "f words"],
    weights: Float[Array, "f words"],
    truth: Bool[Array, "f n c"],
    first: int,
    counted: Bool[Array, " c"] | None = None,
) -> Float[Array, " f"]:
    """Of the concepts that each filter fires on in an image, the share among its first words; the
    mean over the images where it fires on any. Percent, NaN for a filter that nowhere does: the
    layer's recall is `jnp.nanmean` of it.

    Args:
      words: of each filter, the heaviest first; the first c indices are the concepts.
      weights: of the words; one of weight 0 is none of the filter's.
      truth: on which concepts each filter fires in each of its images, see `LEAST_OVERLAP`.
      first: how many words are looked at (`FIRST`).
      counted: the concepts that are asked for, such as those unseen in training; all where it is
        None.
    """
    concepts = jnp.arange(truth.shape[-1])[None, None]
    said = (words[:, :first, None] == concepts) & (weights[:, :first, None] > 0)
    there = truth if counted is None else truth & counted[None, None]
    count = there.sum(2, dtype=jnp.float32)
    found = (there & said.any(1)[:, None]).sum(2, dtype=jnp.float32)
    shares, known = found / jnp.maximum(count, 1), count > 0
    images = known.sum(1, dtype=jnp.float32)
    mean = shares.sum(1) / jnp.maximum(images, 1)
    return jnp.where(images > 0, 100 * mean, jnp.nan)
