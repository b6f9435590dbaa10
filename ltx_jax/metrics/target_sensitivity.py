"""Whether a mask knows whose it is (after FunnyBirds, Hesse, Schaub-Meyer & Roth, ICCV 2023)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.segmentation import counted_pixels


def target_sensitivity(case: Case) -> Float[Array, "n 1"]:
    """100 where the mask is greater on its class's object than on the objects of other classes, on
    average over the pixels of each; 50 where it is equal, 0 where it is less. NaN where the image
    has no object of another class."""
    assert case.truth is not None and case.beside is not None and case.known_truth is not None
    counted = counted_pixels(case)
    own, other = (_mean_inside(case.masks, x & counted) for x in (case.truth, case.beside))
    known = case.known_truth & (case.beside & counted).any((1, 2))
    return jnp.where(known, 50.0 * (1.0 + jnp.sign(own - other)), jnp.nan)[:, None]


def _mean_inside(masks: Float[Array, "n H W"], pixels: Bool[Array, "n H W"]) -> Float[Array, " n"]:
    inside = jnp.where(pixels, masks, 0.0).sum((1, 2))
    return inside / jnp.maximum(pixels.sum((1, 2)).astype(jnp.float32), 1.0)


TARGET_SENSITIVITY = Score(
    "target_sensitivity",
    "target sensitivity",
    "higher",
    0,
    100,
    "share of masks that are greater on their own class's object than on those of other classes",
    "after FunnyBirds, Hesse, Schaub-Meyer & Roth, ICCV 2023",
    target_sensitivity,
    usual=False,
    needs_truth=True,
)
