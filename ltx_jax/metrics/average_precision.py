"""How well a mask's values tell the true object from the rest, at every threshold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.masks.spanning import spanning
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.segmentation import counted_pixels


def both_channels(case: Case) -> Float[Array, "n 1"]:
    """Percent: average precision of the background's channel, 1 − mask, and the foreground's, mask,
    joined, against what each pixel is. The mask is stretched to [0,1]; void pixels are left out.
    NaN where no truth is known."""
    assert case.truth is not None and case.known_truth is not None
    n = len(case.masks)
    mask, counted, truth = (
        x.reshape(n, -1) for x in (spanning(case.masks), counted_pixels(case), case.truth)
    )
    found = average_precision(
        jnp.concatenate([1.0 - mask, mask], -1),
        jnp.concatenate([~truth, truth], -1),
        jnp.concatenate([counted, counted], -1),
    )
    return jnp.where(case.known_truth, 100.0 * found, jnp.nan)[:, None]


def average_precision(
    values: Float[Array, "n p"], positive: Bool[Array, "n p"], counted: Bool[Array, "n p"]
) -> Float[Array, " n"]:
    """Σ (R_k − R_{k−1}) P_k over the different values from the highest down, R_k and P_k recall and
    precision of all that are no lower: exact, and whatever the order of equal values.

    Args:
      values: in [0,1].
      positive: what is to be found.
      counted: what is looked at.

    Returns:
      In [0,1]; 0 where there is nothing to be found.
    """
    # The bits of floats in [0,1] are in their order and leave two free, so that all of it is sorted
    # as one integer: several times as fast as a key with what it carries. What is not counted
    # comes last.
    bits = jax.lax.bitcast_convert_type(values + 0.0, jnp.uint32)
    marks = (positive.astype(jnp.uint32) << 1) | 1
    ranked = jnp.sort(jnp.where(counted, (bits << 2) | marks, 0))[:, ::-1]
    value, right = ranked >> 2, jnp.cumsum((ranked >> 1 & 1).astype(jnp.int32), -1)
    every = jnp.arange(1, values.shape[1] + 1)[None]
    seen = jnp.minimum(every, jnp.maximum(counted.sum(-1, keepdims=True), 1))
    # Equal values count together, at the last of them.
    last = jnp.pad(value[:, 1:] != value[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    before = jax.lax.cummax(jnp.where(last, right, 0), axis=1)
    gained = jnp.where(last, right - jnp.pad(before[:, :-1], ((0, 0), (1, 0))), 0)
    gained, right, seen = (x.astype(jnp.float32) for x in (gained, right, seen))
    return (gained * (right / seen)).sum(-1) / jnp.maximum(right[:, -1], 1.0)


AVERAGE_PRECISION = Score(
    "average_precision",
    "mAP",
    "higher",
    0,
    100,
    "average precision of the mask and of what it leaves out against the object and the rest",
    "the original's segmentation test",
    both_channels,
    7,
    usual=False,
    needs_truth=True,
)
