"""Soft masks of a share of the pixels, those with the greatest raw values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.masks.tokens import upsample

# Of a cell so many values a side are ranked for a quantile: hardly fewer than there are pixels
# where cells are small, and a fraction of the time where they are large.
_RANKED = 4
_LEAST_WIDTH = 0.3


def soft_masks(
    raw: Float[Array, "n g h"], kept: Float[Array, " n"], size: tuple[int, ...]
) -> Float[Array, "n g h"]:
    """Masks over cells that let about a share of the pixels through.

    sigmoid((r − q)/d) of the raw values r, q their (1−k)-quantile over the pixels between them and
    d half the standard deviation there, or 0.3 if that is more. Both are constants for the
    gradient, which says which cells to prefer, not how many.

    Args:
      raw: values of the cells.
      kept: share k of the pixels, in (0,1).
      size: of the images, (H, W).
    """
    threshold, sharpness = _step(raw, kept, size)
    return jax.nn.sigmoid((raw - threshold) * sharpness)


def soft_pixel_masks(
    raw: Float[Array, "n g h"], kept: Float[Array, " n"], size: tuple[int, ...]
) -> Float[Array, "n H W"]:
    """The same of the raw values between the cells: one for each pixel."""
    threshold, sharpness = _step(raw, kept, size)
    return jax.nn.sigmoid((upsample(raw, size) - threshold) * sharpness)


def _step(
    raw: Float[Array, "n g h"], kept: Float[Array, " n"], size: tuple[int, ...]
) -> tuple[Float[Array, "n 1 1"], Float[Array, "n 1 1"]]:
    """Where a soft mask rises, and how steeply."""
    constant = jax.lax.stop_gradient(raw)
    ranked = tuple(
        min(_RANKED * cells, side) for cells, side in zip(raw.shape[1:], size, strict=True)
    )
    values = jnp.sort(upsample(constant, ranked).reshape(len(raw), -1))
    place = (1 - kept[:, None]) * (values.shape[-1] - 1)
    threshold = jnp.take_along_axis(values, jnp.round(place).astype(jnp.int32), -1)
    # A reciprocal, since compilers make one division of several in a row, or do not.
    sharpness = 1 / jnp.maximum(0.5 * values.std(-1), _LEAST_WIDTH)
    return threshold[..., None], sharpness[:, None, None]
