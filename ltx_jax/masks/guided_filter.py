"""Values that follow the edges of an image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

# Added to the guide's variance, which is about 1 over a normalised image: where it is far less than
# this there is no edge.
_EPSILON = 1e-3


def guided_filter(
    values: Float[Array, "n c H W"], guide: Float[Array, "n H W k"], radius: int
) -> Float[Array, "n c H W"]:
    """The guided filter (He, Sun & Tang, TPAMI 2013, eqs. 14 to 16).

    In each window the values are taken for a linear function of the guide's channels, the one with
    the least squared error; a pixel gets the mean of what the windows that it is in say. So values
    change where the guide does, and only there.

    Args:
      values: of pixels, in any range.
      guide: a normalised image.
      radius: pixels of a window to either side of its middle; the border cuts windows off.
    """
    height, width = values.shape[-2:]
    down, across = (_window_means(side, radius) for side in (height, width))
    channels = list(jnp.moveaxis(guide.astype(jnp.float32), -1, 0)[:, :, None])  # [n,1,H,W] each

    def mean(x: Array) -> Array:
        with jax.default_matmul_precision("highest"):
            return down @ x @ across.T

    middle, middles = mean(values), [mean(x) for x in channels]
    shared = [mean(x * values) - m * middle for x, m in zip(channels, middles, strict=True)]
    spread: list[list[Array]] = []
    for i, (x, m) in enumerate(zip(channels, middles, strict=True)):
        symmetric = [row[i] for row in spread]
        others = zip(channels[i:], middles[i:], strict=True)
        spread.append(symmetric + [mean(x * y) - m * k for y, k in others])
        spread[i][i] += _EPSILON
    slopes = _solved(spread, shared)
    offset = middle - sum(a * m for a, m in zip(slopes, middles, strict=True))
    return mean(offset) + sum(mean(a) * x for a, x in zip(slopes, channels, strict=True))


def _window_means(side: int, radius: int) -> Float[np.ndarray, "side side"]:
    """The matrix that takes the mean of each window along a side."""
    pixel = np.arange(side)
    within = np.abs(pixel[:, None] - pixel) <= radius
    return (within / within.sum(1, keepdims=True)).astype(np.float32)


def _solved(matrix: list[list[Array]], right: list[Array]) -> list[Array]:
    """The solution of a system for every pixel, its matrix symmetric and positive: by elimination,
    which needs no pivots then."""
    matrix, right, size = [list(row) for row in matrix], list(right), len(right)
    for i in range(size):
        for j in range(i + 1, size):
            share = matrix[j][i] / matrix[i][i]
            matrix[j] = [a - share * b for a, b in zip(matrix[j], matrix[i], strict=True)]
            right[j] = right[j] - share * right[i]
    found: list[Array] = []
    for i in reversed(range(size)):
        known = sum(a * x for a, x in zip(matrix[i][i + 1 :], found, strict=True))
        found.insert(0, (right[i] - known) / matrix[i][i])
    return found
