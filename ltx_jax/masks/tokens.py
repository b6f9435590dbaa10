"""From a network's raw mask values to a token mask, and from tokens to pixels."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

Size = tuple[int, ...]
Values = TypeVar("Values", np.ndarray, Array)
ACTIVATIONS = ("sigmoid", "relu", "softmax", "clamp")


def activate(raw: Float[Array, "*n g h"], activation: str) -> Float[Array, "*n g h"]:
    """Turn raw values into mask values.

    Args:
      raw: the mask head's output over the token grid, or brought to pixels.
      activation: `sigmoid` (the default everywhere), `relu`, `softmax` over the tokens of one
        image, or `clamp` (no activation, values limited to [0, 1]).

    Returns:
      The masks; in [0, 1] but for `relu`, which has no upper bound.

    Raises:
      ValueError: for an unknown activation.
    """
    if activation == "sigmoid":
        return jax.nn.sigmoid(raw)
    if activation == "relu":
        return jax.nn.relu(raw)
    if activation == "softmax":
        return jax.nn.softmax(raw, axis=(-2, -1))
    if activation == "clamp":
        return jnp.clip(raw, 0.0, 1.0)
    raise ValueError(f"activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")


def interpolation_matrix(tokens: int, pixels: int) -> Float[np.ndarray, "{pixels} {tokens}"]:
    """The matrix that interpolates linearly with half-pixel centres.

    Pixel p lies at (p + 0.5)·tokens/pixels − 0.5 on the token axis; outside the outermost
    token centres the value is the nearest token's (PyTorch's `align_corners=False`).
    """
    position = np.clip((np.arange(pixels) + 0.5) * (tokens / pixels) - 0.5, 0.0, tokens - 1)
    lower = np.minimum(np.floor(position).astype(int), max(tokens - 2, 0))
    weight = position - lower
    matrix = np.zeros((pixels, tokens), np.float32)
    rows = np.arange(pixels)
    matrix[rows, lower] += 1.0 - weight
    matrix[rows, np.minimum(lower + 1, tokens - 1)] += weight
    return matrix


def upsample(masks: Float[Values, "*n g h"], size: Size) -> Float[Values, "*n {size[0]} {size[1]}"]:
    """Values of cells to pixels in float32, bilinearly; `size` is (H, W). Those of pixels stay.

    The one upsampling of the project: training, scores and pictures all go through it. Works on
    numpy arrays as well and then returns one.
    """
    grid, masks = masks.shape[-2:], masks.astype(np.float32)
    if grid == tuple(size):
        return masks
    rows, columns = (interpolation_matrix(n, side) for n, side in zip(grid, size, strict=True))
    # Values to be ranked: an accelerator would round them to fewer bits.
    with jax.default_matmul_precision("highest"):
        return rows @ masks @ columns.T
