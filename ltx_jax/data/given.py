"""Images as people have them in a notebook: arrays, paths, Pillow's; one or many."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ltx_jax.data.examples import UnreadableImage
from ltx_jax.data.image_files import or_unreadable
from ltx_jax.data.preprocessing import Preprocessing, as_rgb, read_resized, resize_image
from ltx_jax.errors import InputError


def as_batch(images: Any, how: Preprocessing) -> np.ndarray:
    """A batch of images of one size.

    Args:
      images: an array with or without its batch axis, taken as it is; or a path, an image of
        Pillow's, or several of these, brought to the network's size.
      how: they become an input.

    Raises:
      InputError: for a file that cannot be read, or arrays of several shapes.
    """
    several = images if isinstance(images, list | tuple) else [images]
    if not several or not all(
        isinstance(one, str | os.PathLike) or _pillow(one) for one in several
    ):
        try:
            array = np.asarray(images)
        except ValueError as error:
            raise InputError(
                "images of several shapes: resize them to the network's size, or give paths or "
                "images of Pillow's"
            ) from error
        return array[None] if array.ndim == 3 else array
    return np.stack([_read(one, how) for one in several])


def _pillow(image: Any) -> bool:
    """Whether it is Pillow's, which is loaded then."""
    module: Any = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _read(image: Any, how: Preprocessing) -> np.ndarray:
    try:
        with or_unreadable(Path(str(image))):
            if _pillow(image):
                return resize_image(as_rgb(image), how)
            return read_resized(Path(image), how)
    except UnreadableImage as error:
        raise InputError(f"{image} cannot be read as an image: {error}") from error
