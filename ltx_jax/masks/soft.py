"""Soft masks of a share of the pixels, those with the greatest raw values."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.masks.tokens import upsample

# Parts of a cell along each side, which stand for its pixels: hardly fewer where cells are small,
# and a fraction of the time and room where they are large.
_PARTS = 4
_LEAST_WIDTH = 0.3


def parts_of(cells: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """A grid four times as fine as the cells along each side, but no finer than the pixels."""
    return tuple(min(_PARTS * n, side) for n, side in zip(cells, size, strict=True))


def soft_masks(
    raw: Float[Array, "n g h"], kept: Float[Array, " n"], size: tuple[int, ...]
) -> Float[Array, "n a b"]:
    """Masks that let about a share of the pixels through, over the parts of the cells
    (`parts_of`).

    sigmoid((r − q)/d) of the raw values r, q their (1−k)-quantile over the pixels between them and
    d half the standard deviation there, or 0.3 if that is more. For the gradient q and d are
    constants, and so is the mean of r: it says which cells to prefer, not how many.

    Args:
      raw: values of the cells.
      kept: share k of the pixels, in (0,1).
      size: of the images, (H, W).
    """
    return soft_pixel_masks(raw, kept, parts_of(raw.shape[1:], size))


def soft_pixel_masks(
    raw: Float[Array, "n g h"], kept: Float[Array, " n"], size: tuple[int, ...]
) -> Float[Array, "n H W"]:
    """The same over pixels."""
    threshold, sharpness = _step(raw, kept, size)
    # Kept and hidden would both gain from raising all values; a network's then never stop rising.
    mean = raw.mean((1, 2), keepdims=True)
    raw = raw + (jax.lax.stop_gradient(mean) - mean)
    return jax.nn.sigmoid((upsample(raw, size) - threshold) * sharpness)


def _step(
    raw: Float[Array, "n g h"], kept: Float[Array, " n"], size: tuple[int, ...]
) -> tuple[Float[Array, "n 1 1"], Float[Array, "n 1 1"]]:
    """Where a soft mask rises, and how steeply."""
    constant = jax.lax.stop_gradient(raw)
    parts = upsample(constant, parts_of(raw.shape[1:], size))
    values = jnp.sort(parts.reshape(len(raw), -1))
    place = (1 - kept[:, None]) * (values.shape[-1] - 1)
    threshold = jnp.take_along_axis(values, jnp.round(place).astype(jnp.int32), -1)
    # A reciprocal, since compilers make one division of several in a row, or do not.
    sharpness = 1 / jnp.maximum(0.5 * values.std(-1), _LEAST_WIDTH)
    return threshold[..., None], sharpness[:, None, None]
