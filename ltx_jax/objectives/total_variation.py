"""Total variation: the mask is smooth."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.objectives.term import Drawn, Term


def total_variation(drawn: Drawn) -> Float[Array, " n"]:
    """Mean absolute difference of neighbouring tokens along the height, plus along the width."""
    down, across = (jnp.abs(jnp.diff(drawn.token_masks, axis=axis)) for axis in (1, 2))
    return down.mean((1, 2)) + across.mean((1, 2))


TOTAL_VARIATION = Term(
    "total_variation",
    "neighbouring tokens differ little",
    "Rudin, Osher & Fatemi 1992; of masks: Fong & Vedaldi 2017, eq. 6",
    total_variation,
)
