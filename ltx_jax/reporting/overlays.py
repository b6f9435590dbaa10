"""Masks as pictures."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ltx_jax.files import write_bytes

# Dark violet over red and orange to pale yellow: lightness rises all the way, so that it reads in
# grey and to the colour-blind.
_ANCHORS = np.array(
    [[13, 8, 60], [84, 2, 120], [156, 23, 110], [210, 60, 75], [244, 120, 40], [252, 190, 50],
     [250, 250, 190]],
    np.float64,
)  # fmt: skip
_GAP = 4
_SMALLEST = 160
_NEARLY_CONSTANT = 0.1
# Steps around the circle of hues that keep any few classes in a row far apart; and how much of its
# colour a class's mask lays over the image.
_GOLDEN, _SATURATION, _OPACITY = 0.618034, 0.85, 0.75
# The line around a region, and how bright it is outside.
_LINE, _OUTSIDE = (255, 230, 0), 0.55


def heat_map(mask: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """A mask in [0,1] as colours."""
    position = np.clip(mask, 0, 1) * (len(_ANCHORS) - 1)
    channels = [np.interp(position, range(len(_ANCHORS)), anchor) for anchor in _ANCHORS.T]
    return np.round(np.stack(channels, -1)).astype(np.uint8)


def stretched(mask: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """A mask scaled to span [0,1], for showing; one that is nearly constant says little, and stays
    as it is."""
    low, high = mask.min(), mask.max()
    return (mask - low) / (high - low) if high - low > _NEARLY_CONSTANT else mask


def overlay(
    image: UInt8[np.ndarray, "H W C"], pixel_mask: Float[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The heat map over the greyed image, more opaque where the (stretched) mask is high."""
    strength = np.clip(stretched(pixel_mask), 0, 1)
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    opacity = 0.25 + 0.5 * strength[..., None]
    return np.round(grey * (1 - opacity) + heat_map(strength) * opacity).astype(np.uint8)


def class_colour(index: int) -> UInt8[np.ndarray, " 3"]:
    """A class's own colour, the same on every page."""
    rgb = colorsys.hsv_to_rgb(index * _GOLDEN % 1, _SATURATION, 1.0)
    return np.round(255 * np.array(rgb)).astype(np.uint8)


def in_hex(colour: UInt8[np.ndarray, " 3"]) -> str:
    """A colour as pages have it, `#rrggbb`."""
    return f"#{colour.tobytes().hex()}"


def class_overlay(
    image: UInt8[np.ndarray, "H W C"],
    pixel_masks: Float[np.ndarray, "k H W"],
    classes: Sequence[int],
) -> UInt8[np.ndarray, "H W 3"]:
    """The masks of k classes over the greyed image, each in its class's colour, more opaque where
    the highest of them is high; where several are seen, their colours mixed."""
    masks = np.clip(pixel_masks, 0, 1)[..., None]
    colours = np.stack([class_colour(index) for index in classes])[:, None, None]
    mixed = (masks * colours).sum(0) / np.maximum(masks.sum(0), 1e-6)
    opacity = _OPACITY * masks.max(0)
    grey = image.mean(-1, keepdims=True)
    return np.round(grey * (1 - opacity) + mixed * opacity).astype(np.uint8)


def outlined(
    image: UInt8[np.ndarray, "H W 3"], region: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The image, darker outside of a region, and a line along the region's inner edge."""
    padded = np.pad(region, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    shown = np.where(region[..., None], image, image * _OUTSIDE).astype(np.uint8)
    shown[region & ~inside] = _LINE
    return shown


def views(
    image: UInt8[np.ndarray, "H W C"], pixel_mask: Float[np.ndarray, "H W"]
) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """Image, mask, heat-map overlay and masked image, by name."""
    shown, mask = in_colour(image), np.clip(pixel_mask, 0, 1)
    return {
        "image": shown,
        "mask": in_colour(np.round(255 * mask).astype(np.uint8)[..., None]),
        "overlay": overlay(image, pixel_mask),
        "masked": np.round(shown * mask[..., None]).astype(np.uint8),
    }


def in_colour(image: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W 3"]:
    """An image of any channels for people: three are colours, others grey."""
    if image.shape[-1] == 3:
        return image
    return np.repeat(np.round(image.mean(-1, keepdims=True)).astype(np.uint8), 3, axis=-1)


def enlarged(picture: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with its pixels repeated until the shorter side has so many."""
    times = -(-side // min(picture.shape[:2]))
    return picture.repeat(times, 0).repeat(times, 1)


def panel(
    image: UInt8[np.ndarray, "H W C"], pixel_mask: Float[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The `views` in a row; small ones enlarged."""
    parts: list[np.ndarray] = []
    for view in views(image, pixel_mask).values():
        picture = enlarged(view, _SMALLEST)
        parts += [picture, np.full((len(picture), _GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], axis=1)


def encode(picture: UInt8[np.ndarray, "H W 3"], kind: str = "png") -> bytes:
    """A picture as the content of a `png` or `jpeg` file."""
    from PIL import Image

    content = BytesIO()
    Image.fromarray(picture).save(content, kind, quality=85)
    return content.getvalue()


def data_uri(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    """A picture as an address that holds it, for pages that need no other file."""
    return "data:image/jpeg;base64," + base64.b64encode(encode(picture, "jpeg")).decode()


def save_png(path: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write a picture, as a whole or not at all."""
    write_bytes(path, encode(picture))
