"""Random maps: what any order of the pixels scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, UInt32

from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee

# Odd, so that each bit of a pixel counts: the golden ratio's part of 2³² (Knuth).
_ODD = 2654435769


@jax.jit
def random_values(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n H W"]:
    """A uniform value in [0,1) for each pixel, drawn from the image's own contents: the same
    wherever the image stands, for every class."""
    keys = jax.vmap(lambda code: jax.random.fold_in(jax.random.key(0), code))(_codes(images))
    return jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:3], jnp.float32))(keys)


def _codes(images: Float[Array, "n H W C"]) -> UInt32[Array, " n"]:
    """A number for each image that another value of any pixel changes: the sum of the bits of all,
    each times an odd number of its own, modulo 2³²."""
    bits = jax.lax.bitcast_convert_type(images.reshape(len(images), -1), jnp.uint32)
    bits = (bits ^ (bits >> 16)) * jnp.uint32(_ODD)
    place = 2 * jnp.arange(bits.shape[1], dtype=jnp.uint32) + 1
    return (bits * (place * jnp.uint32(_ODD))[None]).sum(1, dtype=jnp.uint32)


RANDOM = Rival(
    "random",
    "random values",
    "a yardstick: what an order that knows nothing scores",
    "none",
    random_values,
)
