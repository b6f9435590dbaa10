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
from ltx_jax.files import is_there


def as_batch(images: Any, how: Preprocessing) -> np.ndarray:
    """A batch of images of one size.

    Args:
      images: an array with or without its batch axis, taken as it is; or a path, an image of
        Pillow's, or several of these, brought to the network's size.
      how: they become an input.

    Raises:
      InputError: for a file that cannot be read, arrays of several shapes, or no images at all.
    """
    several = images if isinstance(images, list | tuple) else [images]
    if several and all(isinstance(one, str | os.PathLike) or _pillow(one) for one in several):
        return np.stack([_read(one, how) for one in several])
    array = as_array(images, "images")
    if array.dtype == object or not array.size:
        kind = f"a {type(images).__name__}" if array.size else "none at all"
        raise InputError(
            f"images are {kind}: expected an array, a path or an image of Pillow's, or a list of "
            "these"
        )
    return array[None] if array.ndim == 3 else array


def as_array(values: Any, what: str) -> np.ndarray:
    """An array, of tensors of PyTorch's as well; in a list they are of one shape.

    Raises:
      InputError: where they are not.
    """
    several = isinstance(values, list | tuple)
    try:
        return np.asarray([detached(one) for one in values] if several else detached(values))
    except ValueError as error:
        raise InputError(
            f"{what} of several shapes: bring them to one size, that which the network sees, or "
            "give each by itself"
        ) from error
    except TypeError as error:  # of a type that NumPy has not
        raise InputError(f"{what} are no array ({error}): give them as float32 or uint8") from error


def detached(values: Any) -> Any:
    """A tensor of PyTorch's, which may know gradients or lie on an accelerator, as NumPy takes it;
    anything else as it is."""
    return values.detach().cpu() if hasattr(values, "detach") else values


def _pillow(image: Any) -> bool:
    """Whether it is Pillow's, which is loaded then."""
    module: Any = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _read(image: Any, how: Preprocessing) -> np.ndarray:
    if not _pillow(image) and is_there(Path(image), Path.is_dir):
        raise InputError(f"{image} is a folder: give a list of the images in it")
    try:
        with or_unreadable(Path(str(image))):
            if _pillow(image):
                return resize_image(as_rgb(image), how)
            return read_resized(Path(image), how)
    except UnreadableImage as error:
        raise InputError(f"{image} cannot be read as an image: {error}") from error
