"""Images in cells of a grid: what a map has in each, and what is seen without some of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from ltx_jax.masks.covering import covered
from ltx_jax.masks.spanning import spanning
from ltx_jax.metrics.case import Case
from ltx_jax.models.explainee import in_chunks


def cells_of(height: int, width: int, side: int) -> Int[Array, "H W"]:
    """The number of each pixel's cell in a grid of side × side, in reading order."""
    rows, columns = (_cells_along(n, side) for n in (height, width))
    return rows[:, None] * side + columns[None]


def _cells_along(pixels: int, side: int) -> Int[Array, " pixels"]:
    """The number of each pixel's cell along one side."""
    return jnp.arange(pixels, dtype=jnp.int32) * side // pixels


def means_of_cells(maps: Float[Array, "n H W"], side: int) -> Float[Array, "n c"]:
    """The mean of each map in each of side × side cells, the map stretched to span [0,1] before.

    So cells where a map is at its least or greatest are equal to the last digit, in a constant map
    all of them; and neither an offset nor a scale of the map changes anything.
    """
    _, height, width = maps.shape
    down, across = (jax.nn.one_hot(_cells_along(n, side), side, axis=0) for n in (height, width))
    pixels = jnp.outer(down.sum(1), across.sum(1))
    # Values to be ranked: no accelerator may round them first.
    with jax.default_matmul_precision("highest"):
        sums = down @ spanning(maps) @ across.T
    return (sums / jnp.maximum(pixels, 1)[None]).reshape(len(maps), -1)


def logits_under(case: Case, shown: Bool[Array, "p H W"]) -> Float[Array, "n p classes"]:
    """Logits of each image where only some of its pixels are shown, the others black."""

    def one_image(image: Float[Array, "1 H W C"]) -> Array:
        def some(shown: Array) -> Array:
            whole = jnp.broadcast_to(image, (len(shown), *image.shape[1:]))
            return case.explainee(covered(whole, shown))

        return in_chunks(some, shown, case.chunk)[None]

    return in_chunks(one_image, case.images, 1)
