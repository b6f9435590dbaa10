"""How large and how ragged a mask is: neither good nor bad, but what other scores depend on."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score


def area(case: Case) -> Float[Array, "n 1"]:
    """Percent: the mean of the mask."""
    return 100.0 * case.masks.mean((1, 2))[:, None]


def variation(case: Case) -> Float[Array, "n 1"]:
    """Percent: the mean absolute difference of neighbouring pixels, down and across together."""
    down, across = (jnp.abs(jnp.diff(case.masks, axis=axis)) for axis in (1, 2))
    return 100.0 * (down.mean((1, 2)) + across.mean((1, 2)))[:, None]


AREA = Score(
    "area",
    "area",
    None,
    0,
    100,
    "mean of the mask",
    "extremal perturbations, Fong, Patrick & Vedaldi, ICCV 2019",
    area,
    usual=False,
)
VARIATION = Score(
    "total_variation",
    "variation",
    None,
    0,
    200,
    "mean difference of neighbouring pixels, down and across together",
    "total variation, Rudin, Osher & Fatemi 1992",
    variation,
    usual=False,
)
