"""Images, and masks with them, moved by a few pixels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


def moved(
    values: Float[Array, "n H W ..."], by: Int[Array, "n 2"], most: tuple[int, int]
) -> Float[Array, "n H W ..."]:
    """Each of these, seen through a window that lies some pixels further down and across; what is
    beyond the border repeats it.

    Args:
      values: of pixels.
      by: pixels down and across, of each.
      most: pixels down and across that none exceeds.
    """
    down, across = most
    border = ((down, down), (across, across), *((0, 0) for _ in values.shape[3:]))

    def window(value: Float[Array, "H W ..."], by: Int[Array, 2]) -> Float[Array, "H W ..."]:
        corner = by[0] + down, by[1] + across, *(jnp.int32(0) for _ in value.shape[2:])
        return jax.lax.dynamic_slice(jnp.pad(value, border, "edge"), corner, value.shape)

    return jax.vmap(window)(values, by)
