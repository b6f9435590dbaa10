"""Occlusion (Zeiler & Fergus 2014), with overlapping windows as captum has it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, each_of, logits_through, masks_at_once
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.links import of_class

# Of a side of so many pixels.
_WINDOW, _STRIDE, _OF = 15, 8, 224


@partial(jax.jit, static_argnames=("window", "stride"))
def occlusion(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, "n ..."],
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
) -> Float[Array, "n ... H W"]:
    """What the target's logit loses as a window goes black, the mean over the windows that hold a
    pixel.

    Windows begin at the upper left corner; the last ones may reach beyond the image.

    Args:
      explainee, images, targets: as every rival's.
      window: its height and width in pixels; 15/224 of the image's where not given.
      stride: pixels from window to window down and across, no more than the window; 8/224.
    """
    size = images.shape[1:3]
    window = window or _share(size, _WINDOW)
    stride = stride or _share(size, _STRIDE)
    down, across = (_windows(*one) for one in zip(size, window, stride, strict=True))
    classes = targets.reshape(len(targets), -1)
    before = of_class(explainee(images)[:, None], classes)[None]

    def lost(windows: Array) -> Array:
        a, b = jnp.divmod(windows, len(across))
        seen = 1 - jnp.asarray(down)[a, :, None] * jnp.asarray(across)[b, None]
        after = logits_through(explainee, images, seen[:, None])
        return before - of_class(after[:, :, None], classes[None])

    losses = each_of(len(down) * len(across), lost, masks_at_once(len(images)))
    losses = losses.reshape(len(down), len(across), *classes.shape)
    with jax.default_matmul_precision("highest"):
        total = jnp.einsum("abnk,ah,bw->nkhw", losses, down, across)
    mean = total / jnp.asarray(np.outer(down.sum(0), across.sum(0)))[None, None]
    return mean.reshape(*targets.shape, *size)


def _share(size: tuple[int, ...], pixels: int) -> tuple[int, int]:
    height, width = (max(round(pixels * side / _OF), 1) for side in size)
    return height, width


def _windows(side: int, window: int, stride: int) -> Float[np.ndarray, "windows side"]:
    """Along one side, 1 where a window is."""
    start = stride * np.arange(-(-(side - window) // stride) + 1)[:, None]
    pixel = np.arange(side)
    return ((start <= pixel) & (pixel < start + window)).astype(np.float32)


OCCLUSION = Rival(
    "occlusion",
    "occlusion",
    "Zeiler & Fergus, ECCV 2014; overlapping windows as in captum",
    f"784 forwards at {_OF} pixels: windows of {_WINDOW}/{_OF} of a side, {_STRIDE}/{_OF} apart",
    occlusion,
    in_parts=True,
    of_classes=True,
)
