"""From a photograph to a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from PIL.Image import Image


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


def preprocess(image: Image, how: Preprocessing) -> UInt8[np.ndarray, "H W 3"]:
    """An image of any mode and size as RGB values at the network's size."""
    from PIL import Image as pillow

    method = {
        "bilinear": pillow.Resampling.BILINEAR,
        "bicubic": pillow.Resampling.BICUBIC,
    }[how.interpolation]
    height, width = how.size
    image = to_rgb(image)
    if how.resize == "squash":
        return np.asarray(image.resize((width, height), method))
    scale = max(height / image.height, width / image.width) / how.crop_fraction
    resized = image.resize((round(image.width * scale), round(image.height * scale)), method)
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    return np.asarray(resized.crop((left, top, left + width, top + height)))


def to_rgb(image: Image) -> Image:
    """Any mode as RGB, upright as its EXIF data says.

    Of an animation the first frame; transparency is laid over black, as a mask would; 16-bit grey
    is scaled, not cut off.
    """
    from PIL import Image as pillow
    from PIL import ImageOps

    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        grey = np.clip(np.round(values / 257), 0, 255).astype(np.uint8)
        image = pillow.fromarray(grey)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = pillow.new("RGBA", image.size, (0, 0, 0, 255))
        image = pillow.alpha_composite(black, image)
    return image.convert("RGB")
