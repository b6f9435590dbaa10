"""Shapes and textures that scenes are drawn with: formulas over a grid of points.

A shape tells how far a point lies outside its outline (negative: inside), in units of its radius:
that of the circle around it, which every shape keeps within.
A texture tells how far a point lies inside the inked part (negative: in the gaps), in units of its
period. Both are near enough to true distances for edges one pixel soft.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Grid = Float[np.ndarray, "h w"]
Figure = Callable[[Grid, Grid], Grid]

TURN = 2 * np.pi


def _fold(angle: Grid, parts: int) -> Grid:
    """The angle to the middle of the nearest of equal sectors, in ±π/parts; 0 is a middle."""
    sector = TURN / parts
    return angle - sector * np.round(angle / sector)


# --- Shapes ---------------------------------------------------------------------------------------


def disc(u: Grid, v: Grid) -> Grid:
    """A full circle."""
    return np.hypot(u, v) - 1.0


def square(u: Grid, v: Grid) -> Grid:
    """A square."""
    return np.maximum(np.abs(u), np.abs(v)) - 0.7


def triangle(u: Grid, v: Grid) -> Grid:
    """An equilateral triangle, standing on a side."""
    return np.maximum(v, np.abs(u) * 0.866 - v * 0.5) - 0.5


def star(u: Grid, v: Grid) -> Grid:
    """A fat star of five points."""
    angle = np.abs(_fold(np.arctan2(u, -v), 5))
    # One edge of the folded star runs from the tip (1, 0°) to the notch (0.5, 36°).
    along, across = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    notch_along, notch_across = 0.5 * np.cos(np.pi / 5), 0.5 * np.sin(np.pi / 5)
    length = np.hypot(1.0 - notch_along, notch_across)
    return ((along - 1.0) * notch_across + across * (1.0 - notch_along)) / length


def cross(u: Grid, v: Grid) -> Grid:
    """A plus sign."""
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(a, b) - 0.93, np.minimum(a, b) - 0.36)


def hexagon(u: Grid, v: Grid) -> Grid:
    """A regular hexagon."""
    a, b = np.abs(u), np.abs(v)
    return np.maximum(a, 0.5 * a + 0.866 * b) - 0.85


def ring(u: Grid, v: Grid) -> Grid:
    """A circle with a round hole."""
    return np.abs(np.hypot(u, v) - 0.7) - 0.3


def crescent(u: Grid, v: Grid) -> Grid:
    """A waxing moon, its bow to the left."""
    return np.maximum(np.hypot(u, v) - 1.0, 0.72 - np.hypot(u - 0.55, v))


def flower(u: Grid, v: Grid) -> Grid:
    """Six round petals."""
    angle = np.abs(_fold(np.arctan2(v, u), 6))
    radius = np.hypot(u, v)
    petal = np.hypot(radius * np.cos(angle) - 0.66, radius * np.sin(angle)) - 0.34
    return np.minimum(petal, radius - 0.6)


def heart(u: Grid, v: Grid) -> Grid:
    """Two round lobes over a point."""
    a = np.abs(u)
    lobe = np.hypot(a - 0.41, v + 0.33) - 0.47
    # The tangent to a lobe that runs to the point; inside of it, from the lobe's middle downwards.
    tangent = 0.8 * a + 0.6 * v - 0.6
    wedge = np.maximum(tangent, np.maximum(0.6 * a - 0.8 * v - 0.51, -0.33 - v))
    return np.minimum(lobe, wedge)


# --- Textures -------------------------------------------------------------------------------------


def _wave(x: Grid) -> Grid:
    """A triangle wave of period 1 between ±0.25: the signed distance to stripes' edges."""
    return np.abs(x - np.floor(x) - 0.5) - 0.25


def plain(u: Grid, v: Grid) -> Grid:
    """Ink all over."""
    return np.ones_like(u)


def stripes(u: Grid, v: Grid) -> Grid:
    """Straight and parallel."""
    return _wave(u)


def checks(u: Grid, v: Grid) -> Grid:
    """A chess board."""
    return 4.0 * _wave(0.7 * u) * _wave(0.7 * v)


def tiles(u: Grid, v: Grid) -> Grid:
    """A chess board of larger squares, as sharp at their corners as along their edges."""
    a, b = _wave(0.6 * u), _wave(0.6 * v)
    return np.sign(a * b) * np.minimum(np.abs(a), np.abs(b)) / 0.6


def dots(u: Grid, v: Grid) -> Grid:
    """Round dots in staggered rows."""
    v = v * 1.15
    row = np.floor(v)
    shifted = u + 0.5 * (row % 2)
    return 0.3 - np.hypot(shifted - np.floor(shifted) - 0.5, (v - row - 0.5) / 1.15)


def rings(u: Grid, v: Grid) -> Grid:
    """Concentric circles."""
    return _wave(np.hypot(u, v) + 0.25)


def hatching(u: Grid, v: Grid) -> Grid:
    """Two sets of thin lines that cross at a slant."""
    return np.maximum(_wave(0.75 * (u + v)), _wave(0.75 * (u - v))) - 0.1


def zigzags(u: Grid, v: Grid) -> Grid:
    """Parallel lines that turn sharply to and fro."""
    return _wave(v + 1.2 * _wave(0.6 * u))


def spokes(u: Grid, v: Grid) -> Grid:
    """Eight dark and eight light sectors."""
    return _wave(np.arctan2(v, u) * (8 / TURN)) * np.hypot(u, v)


def waves(u: Grid, v: Grid) -> Grid:
    """Parallel lines that swing to and fro."""
    return _wave(v + 0.35 * np.sin(TURN * 0.5 * u))


def swirl(u: Grid, v: Grid) -> Grid:
    """Four arms that wind outwards."""
    return _wave(np.arctan2(v, u) * (4 / TURN) + 0.6 * np.hypot(u, v))


def bricks(u: Grid, v: Grid) -> Grid:
    """Courses of bricks and the joints between them."""
    v = v * 1.1
    row = np.floor(v)
    along = 0.55 * u + 0.5 * (row % 2)
    joint = np.minimum(
        0.5 - np.abs(v - row - 0.5), (0.5 - np.abs(along - np.floor(along) - 0.5)) / 0.55
    )
    return joint - 0.13
