"""An image through a mask: what it hides is replaced by a fill."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

# A name; other images; or what makes them of images and of what is seen of them.
Fill = str | Array | Callable[[Array, Array], Array]
FILLS = ("black", "mean", "blur", "noise")
_BLUR_SHARE = 1 / 8
_NOISE = 0.25


def covered(
    images: Float[Array | np.ndarray, "*#n H W C"],
    masks: Float[Array | np.ndarray, "*#n H W"] | Bool[Array | np.ndarray, "*#n H W"],
    fill: Fill = "black",
) -> Float[Array, "... H W C"]:
    """Images through masks: the one masking of the project, for objectives and scores alike.

    Args:
      images: in [0,1].
      masks: what is seen of each pixel, in [0,1] or as true and false; leading axes may be 1 in
        either.
      fill: what stands where nothing is seen; see `filling`. One that depends on what is seen is a
        function of the images and the masks.

    Returns:
      image · mask + fill · (1 − mask).
    """
    images = jnp.asarray(images)
    seen = jnp.asarray(masks)[..., None]
    other = fill(images, jnp.asarray(masks)) if callable(fill) else filling(images, fill)
    if seen.dtype == bool:
        return jnp.where(seen, images, jnp.zeros((), images.dtype) if other is None else other)
    shown = images * seen
    return shown if other is None else shown + other * (1 - seen)


def filling(images: Float[Array, "*n H W C"], fill: str | Array) -> Array | None:
    """What covers the hidden part of images; None for black.

    Args:
      images: in [0,1].
      fill: `black`; `mean`, each image's mean colour; `blur`, each image reduced to an eighth of
        its size and enlarged again, both smoothly; `noise`, each image's mean colour with
        N(0, 0.25²) on it, the same for every image, cut to [0,1]; or other images, of a shape
        that fits.

    Raises:
      ValueError: for another name.
    """
    if not isinstance(fill, str):
        return jnp.asarray(fill)
    if fill == "black":
        return None
    if fill == "mean":
        return images.mean((-3, -2), keepdims=True)
    if fill == "blur":
        *n, height, width, channels = images.shape
        small = (*n, *(max(round(side * _BLUR_SHARE), 1) for side in (height, width)), channels)
        reduced = jax.image.resize(images, small, "linear", antialias=True)
        return jax.image.resize(reduced, images.shape, "linear")
    if fill == "noise":
        return jnp.clip(images.mean((-3, -2), keepdims=True) + _NOISE * fixed_noise(images), 0, 1)
    raise ValueError(f"fill {fill!r} is not one of {', '.join(FILLS)}, or images")


def fixed_noise(images: Float[Array, "*n H W C"]) -> Float[Array, "... H W C"]:
    """N(0, 1) for each pixel and channel, one draw for all: no image's depends on those beside."""
    *n, height, width, channels = images.shape
    shape = (*(1 for _ in n), height, width, channels)
    return jax.random.normal(jax.random.key(0), shape, images.dtype)
