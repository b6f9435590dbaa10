"""From a photograph to a network's input, and its masks along with it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

# Of an enlarged image; a few bytes in a file can become gigabytes.
_MOST_PIXELS = 1 << 24
# Suffixes of images that Pillow reads with pillow-heif.
HEIC = frozenset({".heic", ".heif"})
# An image [height,width,C]: uint8, or float32 in [0,1].
Pixels = UInt8[np.ndarray, "_ _ C"] | Float32[np.ndarray, "_ _ C"]


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input.

    Attributes:
      size: (height, width) in pixels.
      mean, std: of the normalisation, which is the network's affair and not done here.
      interpolation: `bilinear` or `bicubic`.
      resize: `squash`, straight to `size` whatever the aspect ratio (LTX), or `crop`: the shorter
        side to size / crop_fraction, then the centre (timm's evaluation).
      crop_fraction: of `crop`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"
    resize: str = "squash"
    crop_fraction: float = 0.875


def resize_image(image: Pixels, how: Preprocessing) -> Pixels:
    """An image of any size at the network's, of the type and the channels that it has.

    An image that already has the size is squashed to itself, value by value; `crop` enlarges it
    and cuts off its margin, as of any other.
    """
    if image.dtype == np.uint8 and image.shape[-1] == 3:  # all at once, to the same values
        return _resize(image, how, how.interpolation)
    planes = [_resize(plane, how, how.interpolation) for plane in np.moveaxis(image, -1, 0)]
    resized = np.stack(planes, axis=-1)
    # Bicubic interpolation overshoots; in 8 bits Pillow itself keeps within the range.
    return resized if resized.dtype == np.uint8 else resized.clip(0.0, 1.0)


def resize_masks(masks: Bool[np.ndarray, "k h w"], how: Preprocessing) -> Bool[np.ndarray, "k H W"]:
    """Masks of an image of any size where `resize_image` takes it, by the nearest pixel.

    A pixel's place is its centre (half-pixel centres), for masks as for images.
    """
    resized = np.empty((len(masks), *how.size), np.bool_)
    for row, mask in zip(resized, masks, strict=True):
        # As bytes: Pillow gives true back as 255, which NumPy takes for true and XLA does not.
        row[:] = _resize(mask.view(np.uint8), how, "nearest") != 0
    return resized


def _resize(
    plane: Shaped[np.ndarray, "h w *rgb"], how: Preprocessing, method: str
) -> Shaped[np.ndarray, "H W *rgb"]:
    """One channel or mask, or an RGB image: the geometry is the same for all."""
    if how.resize == "squash" and plane.shape[:2] == how.size:
        return plane
    from PIL import Image

    return np.asarray(_resized(Image.fromarray(plane), how, method))


def _resized(image: Any, how: Preprocessing, method: str) -> Any:
    """The same of an image of Pillow's."""
    from PIL import Image

    resampling = Image.Resampling[method.upper()]
    height, width = how.size
    if how.resize == "squash":
        return image.resize((width, height), resampling)
    scale = max(height / image.height, width / image.width) / how.crop_fraction
    whole = round(image.width * scale), round(image.height * scale)
    left, top = round((whole[0] - width) / 2), round((whole[1] - height) / 2)
    if whole[0] * whole[1] <= _MOST_PIXELS:
        return image.resize(whole, resampling).crop((left, top, left + width, top + height))
    # Of a long and thin image only what remains is enlarged, at a last digit's cost.
    across, down = image.width / whole[0], image.height / whole[1]
    box = left * across, top * down, (left + width) * across, (top + height) * down
    return image.resize((width, height), resampling, box=box)


def read_rgb(path: Path, upright: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """An image file of any mode as RGB, upright as its EXIF data says.

    Of an animation the first frame; transparency is laid over black, as a mask would; 16-bit grey
    is scaled, not cut off, as are floats from 0 to 1. EXIF data that cannot be read costs an image
    its orientation alone. HEIC needs pillow-heif (the extra `heic`).

    Args:
      path: of the file.
      upright: False for the pixels as they are stored, which annotations of pixels refer to.

    Raises:
      Exception: of any type, whatever breaks in Pillow at a file that it cannot read; OSError and
        ValueError for the most part.
    """
    with _opened(path) as file:
        return as_rgb(file, upright)


def read_resized(path: Path, how: Preprocessing) -> UInt8[np.ndarray, "H W 3"]:
    """`resize_image` of `read_rgb`, without an array in between; raises as the latter."""
    with _opened(path) as file:
        return np.asarray(_resized(_in_rgb(file), how, how.interpolation))


def as_rgb(image: Any, upright: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """An image of Pillow's, as `read_rgb` reads one."""
    return np.asarray(_in_rgb(image, upright))


def _opened(path: Path) -> Any:
    from PIL import Image

    if path.suffix.lower() in HEIC:
        _register_heic()
    return Image.open(path)


def _in_rgb(image: Any, upright: bool = True) -> Any:
    from PIL import ExifTags, Image, ImageOps

    # Pillow tells of damaged pixels once alone; and EXIF data may stand behind them.
    image.load()
    # What cameras and scrapers write there breaks Pillow in more ways than it names.
    with suppress(Exception):
        if upright and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)  # which would copy any other image
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        grey = _as_bytes(values)
        if (clear := image.info.get("transparency")) is not None:  # of a PNG of 16 bits one value
            grey[values == clear] = 0
        image = Image.fromarray(grey)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _as_bytes(grey: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Grey values as bytes: whole numbers of 16 bits, or of 32 where one is beyond 16; floats from
    0 to 1, to 255 or to 65535, whichever range holds them.

    Raises:
      ValueError: for values outside of these.
    """
    ranges = (65535, 2**31 - 1) if grey.dtype.kind in "iu" else (1, 255, 65535)
    least, most = (float(grey.min()), float(grey.max())) if grey.size else (0, 0)
    white = next((white for white in ranges if most <= white), None)
    if white is None or not least >= 0:
        told = ", ".join(f"0 to {white}" for white in ranges)
        raise ValueError(f"its values are from {least:g} to {most:g}: expected {told}")
    scaled = np.empty(grey.shape, np.uint8)
    for row, values in zip(scaled, grey, strict=True):  # all at once would take 24 bytes a pixel
        row[:] = np.round(values.astype(np.float64) * (255 / white))
    return scaled


def _register_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError as error:
        raise OSError("HEIC needs `pip install 'ltx_jax[heic]'`") from error
    register_heif_opener()
