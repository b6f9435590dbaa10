"""Images blurred by a Gaussian."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float


def blurred(
    images: Float[Array, "n H W C"], deviation: float, reach: int | None = None
) -> Float[Array, "n H W C"]:
    """Each pixel the weighted mean of those around it; what is beyond the border repeats it.

    Args:
      images: any values.
      deviation: of the Gaussian, in pixels; 0 leaves the images as they are.
      reach: pixels to either side that count; four deviations where not given.
    """
    height, width = images.shape[1:3]
    down, across = (_weights(side, deviation, reach) for side in (height, width))
    return jnp.einsum("ah,bw,nhwc->nabc", down, across, images, precision="highest")


def _weights(side: int, deviation: float, reach: int | None) -> Float[np.ndarray, "side side"]:
    """What each pixel of a side takes from the others."""
    reach = int(np.ceil(4 * deviation)) if reach is None else reach
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (offset / max(deviation, 1e-6)) ** 2)
    matrix = np.zeros((side, side), np.float32)
    pixel = np.arange(side)[:, None]
    np.add.at(matrix, (pixel, np.clip(pixel + offset, 0, side - 1)), weight / weight.sum())
    return matrix
