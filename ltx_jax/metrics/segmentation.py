"""How well a mask's foreground covers the true object."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score


def foreground(masks: Float[Array, "n H W"]) -> Bool[Array, "n H W"]:
    """Where a mask exceeds its own mean (the original's segmentation test)."""
    return masks > masks.mean((1, 2), keepdims=True)


def intersection_over_union(case: Case) -> Float[Array, "n 1"]:
    """Percent; 0 where both are empty, NaN where no truth is known."""
    assert case.truth is not None and case.known_truth is not None
    counted = jnp.ones_like(case.truth) if case.counted is None else case.counted
    marked, truth = foreground(case.masks) & counted, case.truth & counted
    both, either = ((x).sum((1, 2)).astype(jnp.float32) for x in (marked & truth, marked | truth))
    share = 100.0 * both / jnp.maximum(either, 1.0)
    return jnp.where(case.known_truth, share, jnp.nan)[:, None]


IOU = Score(
    "iou",
    "IoU",
    "higher",
    0,
    100,
    "overlap of the mask's foreground, where it exceeds its mean, with the true object",
    "the original's segmentation test",
    intersection_over_union,
    7,
    needs_truth=True,
)
