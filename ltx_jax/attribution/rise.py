"""RISE (Petsiuk, Das & Saenko 2018)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, logits_through, masks_at_once, sum_over
from ltx_jax.masks.tokens import interpolation_matrix
from ltx_jax.models.explainee import Explainee

# The authors' for ViTs and VGG; they take 8,000 for ResNet-50.
_MASKS, _CELLS, _KEPT = 4000, 7, 0.5


@partial(jax.jit, static_argnames=("masks", "cells", "kept"))
def rise(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, "n ..."],
    masks: int = _MASKS,
    cells: int = _CELLS,
    kept: float = _KEPT,
) -> Float[Array, "n ... H W"]:
    """The mean of random masks, each weighted with the target's probability through it, divided by
    the share that a mask keeps (eq. 6).

    Args:
      explainee, images, targets: as every rival's.
      masks: so many (`smooth_mask`), the same for every image.
      cells: of a mask along each side.
      kept: probability of a cell to be seen.
    """
    classes = targets.reshape(len(targets), -1)
    draw = partial(smooth_mask, cells=cells, kept=kept, size=images.shape[1:3])

    def weighted(numbers: Array, counts: Array) -> Array:
        drawn = jax.vmap(draw)(numbers)
        logits = logits_through(explainee, images, drawn[:, None])
        chances = explainee.probability(logits[:, :, None], classes[None])
        seen = jnp.where(counts[:, None, None], chances, 0)
        return jnp.einsum("mnk,mhw->nkhw", seen, drawn, precision="highest")

    total = sum_over(jnp.arange(masks, dtype=jnp.int32), weighted, masks_at_once(len(images)))
    return total.reshape(*targets.shape, *images.shape[1:3]) / (masks * kept)


def smooth_mask(
    number: Int[Array, ""], cells: int, kept: float, size: tuple[int, ...]
) -> Float[Array, "H W"]:
    """A mask by its number: cells that are there or not, enlarged bilinearly to one cell more than
    the image along each side, and cut to the image at a place that is drawn (section 3.2)."""
    key = jax.random.fold_in(jax.random.key(0), number)
    drawn = jax.random.uniform(key, (cells**2 + 2,), jnp.float32)
    grid = (drawn[2:].reshape(cells, cells) < kept).astype(jnp.float32)
    pixels = [-(-side // cells) for side in size]
    shift = (drawn[:2] * jnp.array(pixels, jnp.float32)).astype(jnp.int32)
    down, across = (
        jax.lax.dynamic_slice_in_dim(interpolation_matrix(cells, (cells + 1) * n), start, side)
        for n, start, side in zip(pixels, shift, size, strict=True)
    )
    with jax.default_matmul_precision("highest"):
        return down @ grid @ across.T


RISE = Rival(
    "rise",
    "RISE",
    "Petsiuk, Das & Saenko, BMVC 2018",
    f"{_MASKS:,} forwards: {_CELLS}×{_CELLS} cells, each seen with probability {_KEPT:g}",
    rise,
    in_parts=True,
    of_classes=True,
)
