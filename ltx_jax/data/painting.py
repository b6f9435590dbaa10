"""What pictures made on the spot are painted with: places, windows on a canvas, colours, noise."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ltx_jax.data import figures
from ltx_jax.data.figures import Figure, Grid
from ltx_jax.errors import InputError

# Lengths are in units of a picture of this many pixels, whatever its size.
UNITS = 96
# Radii (lowest, highest) by the number of objects: so many fit with hardly any overlap.
RADII = {1: (16.0, 24.0), 2: (15.0, 21.0), 3: (14.0, 18.0), 4: (14.0, 16.0)}
_ARRANGEMENTS = 64
# Two objects whose centres are this share of their radii's sum apart overlap slightly at most.
_CLEARANCE = 0.9
_PRIMARIES = np.arange(3)[:, None, None] / 3


def checked_number(objects: tuple[int, int]) -> tuple[int, int]:
    """The fewest and most objects of a picture.

    Raises:
      InputError: where so many do not fit.
    """
    low, high = objects
    if not 0 <= low <= high <= max(RADII):
        raise InputError(f"objects={objects!r}: expected (fewest, most) between 0 and {max(RADII)}")
    return objects


def arrange(rng: np.random.Generator, radii: np.ndarray) -> np.ndarray:
    """Centres [objects,2] of the first of many random arrangements that keeps objects apart, or of
    the one that does so best."""
    share = rng.random((_ARRANGEMENTS, len(radii), 2))
    margin = radii[:, None] + 1.0
    centres = margin + share * (UNITS - 2 * margin)
    i, j = np.triu_indices(len(radii), 1)
    apart = np.linalg.norm(centres[:, i] - centres[:, j], axis=-1) / (radii[i] + radii[j])
    closest = apart.min(-1, initial=_CLEARANCE)
    return centres[closest.argmax()]


class Window(NamedTuple):
    """The part of a canvas around something that is drawn.

    Attributes:
      rows, columns: of the canvas.
      x, y: pixel centres from the middle of the thing, rightwards and downwards, in units.
      scale: pixels a unit.
    """

    rows: slice
    columns: slice
    x: Grid
    y: Grid
    scale: float

    @classmethod
    def around(cls, centre: np.ndarray, radius: float, size: int) -> Window:
        scale = size / UNITS
        places, offsets = [], []
        for middle in centre.tolist():
            first = max(math.floor((middle - radius) * scale) - 1, 0)
            last = min(math.ceil((middle + radius) * scale) + 1, size)
            places.append(slice(first, last))
            offsets.append((np.arange(first, last) + 0.5) / scale - middle)
        return cls(places[1], places[0], offsets[0][None, :], offsets[1][:, None], scale)

    def turned(self, turn: float) -> tuple[Grid, Grid]:
        """The coordinates of something that is turned by a share of a full turn."""
        cosine, sine = np.cos(figures.TURN * turn), np.sin(figures.TURN * turn)
        return cosine * self.x + sine * self.y, cosine * self.y - sine * self.x

    def blend(self, canvas: np.ndarray, paint: np.ndarray, cover: Grid) -> None:
        """Lay paint over the canvas, as thick as `cover` says."""
        patch = canvas[:, self.rows, self.columns]
        patch += cover.astype(np.float32) * (paint.astype(np.float32) - patch)


def colour(hue: float, lightness: float, saturation: float) -> Float[np.ndarray, "3 1 1"]:
    """A colour around the wheel; hue in turns."""
    return lightness + saturation * np.cos(figures.TURN * (hue - _PRIMARIES))


def finish(canvas: np.ndarray, grain: np.ndarray) -> UInt8[np.ndarray, "size size 3"]:
    """The canvas, grain over it, as a picture."""
    levels = ((canvas + grain) * np.float32(255.0) + np.float32(0.5)).clip(0.0, 255.0)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def noise(rng: np.random.Generator, knots: int, size: int) -> np.ndarray:
    """Smooth noise [size,size] about in [0,1], with so many knots a side."""
    weights = _smooth_weights(knots, size)
    return (weights @ rng.random((knots, knots)) @ weights.T) * 1.6 - 0.3


@cache
def _smooth_weights(knots: int, size: int) -> np.ndarray:
    """Each pixel's shares [size,knots] of the knots along a side: a bell curve around it."""
    pixel = (np.arange(size) + 0.5) / size * (knots - 1)
    bell = np.exp(-2.0 * (pixel[:, None] - np.arange(knots)) ** 2)
    return bell / bell.sum(1, keepdims=True)


def relief(window: Window, radius: float, outside: Grid) -> Grid:
    """Brightness of an object's pixels: lit from above left, with a dark rim."""
    lit = 1.0 - 0.14 * (window.x + window.y) / radius
    return lit * np.clip(0.35 - 0.5 * outside / window.scale, 0.35, 1.0)


def inked(texture: Figure, u: Grid, v: Grid, period: float, scale: float) -> Grid:
    """How much ink a texture of this period has at each point, in [0,1]."""
    return np.clip(0.5 + texture(u / period, v / period) * period * scale, 0.0, 1.0)
