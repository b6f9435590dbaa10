"""Images without some cells of a grid."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from ltx_jax.masks.covering import covered
from ltx_jax.metrics.case import Case
from ltx_jax.models.explainee import in_chunks


def cells_of(height: int, width: int, side: int) -> Int[Array, "H W"]:
    """The number of each pixel's cell in a grid of side × side, in reading order."""
    rows, columns = (jnp.arange(n, dtype=jnp.int32) * side // n for n in (height, width))
    return rows[:, None] * side + columns[None]


def logits_under(case: Case, shown: Bool[Array, "p H W"]) -> Float[Array, "n p classes"]:
    """Logits of each image where only some of its pixels are shown, the others black."""

    def one_image(image: Float[Array, "1 H W C"]) -> Array:
        def some(shown: Array) -> Array:
            whole = jnp.broadcast_to(image, (len(shown), *image.shape[1:]))
            return case.explainee(covered(whole, shown))

        return in_chunks(some, shown, case.chunk)[None]

    return in_chunks(one_image, case.images, 1)
