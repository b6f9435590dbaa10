"""A bias towards the centre: what objects in the middle of pictures are worth."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee

_DEVIATION = 0.25


@jax.jit
def centre(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n H W"]:
    """A Gaussian in the middle, a quarter of each side its standard deviation; for every image
    the same."""
    n, height, width, _ = images.shape
    # From the middle, in sides.
    away = ((jnp.arange(side, dtype=jnp.float32) + 0.5) / side - 0.5 for side in (height, width))
    down, across = (jnp.exp(-0.5 * (place / _DEVIATION) ** 2) for place in away)
    return jnp.broadcast_to(jnp.outer(down, across), (n, height, width))


CENTRE = Rival(
    "centre",
    "the centre",
    "a yardstick: a Gaussian in the middle of the image",
    "none",
    centre,
)
