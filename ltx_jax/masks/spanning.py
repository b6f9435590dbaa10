"""Maps of any range as masks."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float


def spanning(maps: Float[Array | np.ndarray, "*n H W"]) -> Float[Array, "*n H W"]:
    """Each map stretched to span [0,1]; a constant one becomes 0 (the original's normalisation)."""
    # A sixteenth is exact, and its range is a number, with a reciprocal, of all finite values.
    maps = 0.0625 * jnp.asarray(maps)
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    some = high > low
    return jnp.where(some, (maps - low) / jnp.where(some, high - low, 1), 0).clip(0, 1)
