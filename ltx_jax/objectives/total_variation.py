"""Total variation: the mask is smooth."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.objectives.term import Drawn, Term

# Differences below it count by their square: where neighbours are equal but for rounding, the
# gradient of an absolute value would be the sign of that, and Adam would make a step of it.
_EQUAL = 0.01


def total_variation(drawn: Drawn) -> Float[Array, " n"]:
    """Mean absolute difference of neighbouring tokens along the height, plus along the width; below
    0.01 it is Huber's, |d| → d²/0.02 (less what is constant). Of a single row there is none along
    the height, and likewise."""
    down, across = (_absolute(jnp.diff(drawn.token_masks, axis=axis)) for axis in (1, 2))
    return _mean(down) + _mean(across)


def _mean(differences: Array) -> Array:
    return differences.mean((1, 2)) if differences.size else jnp.zeros(len(differences))


def _absolute(difference: Array) -> Array:
    size = jnp.abs(difference)
    return jnp.where(size > _EQUAL, size - 0.5 * _EQUAL, 0.5 / _EQUAL * difference**2)


TOTAL_VARIATION = Term(
    "total_variation",
    "neighbouring tokens differ little",
    "Rudin, Osher & Fatemi 1992; of masks: Fong & Vedaldi 2017, eq. 6",
    total_variation,
)
