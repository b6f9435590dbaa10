"""Scenes: cluttered pictures made on the spot, with textured objects whose pixels are known.

Each class is a shape with a texture of its own. The background holds plain shapes and shapeless
pieces of the same textures, so that neither alone tells the class.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ltx_jax.data import figures
from ltx_jax.data.drawn import DrawnScenes, Scene
from ltx_jax.data.figures import Figure
from ltx_jax.data.painting import (
    RADII,
    UNITS,
    Window,
    arrange,
    checked_number,
    colour,
    finish,
    inked,
    noise,
    relief,
)

_FIGURES: dict[str, tuple[Figure, Figure]] = {
    "striped disc": (figures.disc, figures.stripes),
    "checkered square": (figures.square, figures.checks),
    "dotted triangle": (figures.triangle, figures.dots),
    "ringed star": (figures.star, figures.rings),
    "hatched cross": (figures.cross, figures.hatching),
    "zigzag hexagon": (figures.hexagon, figures.zigzags),
    "spoked ring": (figures.ring, figures.spokes),
    "wavy crescent": (figures.crescent, figures.waves),
    "swirled flower": (figures.flower, figures.swirl),
    "bricked heart": (figures.heart, figures.bricks),
}
CLASSES: tuple[str, ...] = tuple(_FIGURES)
SHAPES = tuple(shape for shape, _ in _FIGURES.values())
TEXTURES = tuple(texture for _, texture in _FIGURES.values())

# Fewest and most pieces of the background: lines, plain shapes, shapeless textures.
_PIECES = (9, 13)
# Which random stream a scene draws from, so that its background is the same under any objects.
_LAYOUT, _BACKGROUND = 1, 2


class _Layout(NamedTuple):
    """What is drawn where, [objects] each; lengths in units."""

    classes: np.ndarray
    radii: np.ndarray
    centres: np.ndarray


def scene(
    seed: int,
    index: int,
    objects: tuple[int, int] = (1, 3),
    size: int = UNITS,
    without: Container[int] = (),
) -> Scene:
    """Draw one scene; the same arguments give the same pixels, whatever else is drawn.

    Args:
      seed, index: 0 or more; together they choose the scene.
      objects: fewest and most objects, of different classes, 0 to 4.
      size: side in pixels; the same scene at another size is the same picture.
      without: the parts to leave out, all else being the same: the pieces of the background from
        the back to the front, 0 to 12 at most, and from 13 on the objects. One that is not there
        cannot be missed.

    Returns:
      Image [size,size,3], labels [classes], masks [classes,size,size].

    Raises:
      InputError: for a number of objects that does not fit.
    """
    layout, rng = _layout(seed, index, objects)
    canvas, grain = _background(seed, index, size, without)
    masks = np.zeros((len(CLASSES), size, size), np.bool_)
    labels = np.zeros(len(CLASSES), np.float32)
    for part, (label, radius, centre) in enumerate(zip(*layout, strict=True), _PIECES[1]):
        there = part not in without
        # What is left out is drawn elsewhere, since it takes its share of the random stream.
        drawn = (canvas, masks) if there else (canvas.copy(), masks.copy())
        _draw_object(*drawn, rng, int(label), radius, centre)
        labels[label] = there
    return Scene(finish(canvas, grain), labels, masks)


def scenes(
    seed: int, count: int, objects: tuple[int, int] = (1, 3), size: int = UNITS, first: int = 0
) -> Scene:
    """Scenes `first` … `first + count − 1` of a seed, stacked along a leading axis; see `scene`."""
    batch = Scene(
        np.empty((count, size, size, 3), np.uint8),
        np.empty((count, len(CLASSES)), np.float32),
        np.empty((count, len(CLASSES), size, size), np.bool_),
    )
    for row in range(count):
        for column, part in zip(batch, scene(seed, first + row, objects, size), strict=True):
            column[row] = part
    return batch


def scene_classes(seed: int, index: int, objects: tuple[int, int] = (1, 3)) -> tuple[int, ...]:
    """The classes of a scene in the order of their drawing, without drawing it; see `scene`."""
    return tuple(_layout(seed, index, objects)[0].classes.tolist())


@dataclass(frozen=True)
class SceneSource(DrawnScenes):
    """Scenes; the labels of one are its classes in the order of their drawing: the last lies in
    front."""

    objects: tuple[int, int] = (1, 2)
    kind, classes = "scene", CLASSES

    @property
    def parts(self) -> list[Container[int]]:
        """The pieces of the background together, and each of the objects."""
        pieces = range(_PIECES[1])
        return [pieces, *((pieces.stop + i,) for i in range(self.objects[1]))]

    def labels_of(self, index: int) -> tuple[int, ...]:
        """Of a scene by its number; see `scene_classes`."""
        return scene_classes(self.seed, index, self.objects)

    def draw(self, index: int, size: int, without: Container[int] = ()) -> Scene:
        """See `scene`."""
        return scene(self.seed, index, self.objects, size, without)


# --- Objects --------------------------------------------------------------------------------------


def _layout(seed: int, index: int, objects: tuple[int, int]) -> tuple[_Layout, np.random.Generator]:
    """Which objects go where, and the stream that their looks are to be drawn from."""
    low, high = checked_number(objects)
    rng = np.random.default_rng([seed, index, _LAYOUT])
    count = int(rng.integers(low, high + 1))
    classes = rng.permutation(len(CLASSES))[:count]
    if not count:
        return _Layout(classes, np.zeros(0, np.float64), np.zeros((0, 2), np.float64)), rng
    radii = rng.uniform(*RADII[count], count)
    return _Layout(classes, radii, arrange(rng, radii)), rng


def _draw_object(
    canvas: np.ndarray,
    masks: np.ndarray,
    rng: np.random.Generator,
    label: int,
    radius: float,
    centre: np.ndarray,
) -> None:
    """Paint one object over the canvas and what it hides, and keep the masks right."""
    turn, hue, contrast, period = rng.random(4)
    window = Window.around(centre, radius, canvas.shape[-1])
    u, v = window.turned(turn)
    outside = SHAPES[label](u / radius, v / radius) * radius * window.scale
    ink = inked(TEXTURES[label], u, v, 6.5 + 2.0 * period, window.scale)
    light = colour(hue, 0.76, 0.24)
    dark = colour(hue + 0.3 + 0.4 * contrast, 0.28, 0.22)
    paint = (dark + (light - dark) * ink) * relief(window, radius, outside)
    inside = outside < 0
    # Edges are soft towards the inside only, so that the mask holds every pixel that changes.
    window.blend(canvas, paint, np.where(inside, np.clip(0.5 - outside, 0.0, 1.0), 0.0))
    seen = masks[:, window.rows, window.columns]
    seen &= ~inside
    seen[label] |= inside


# --- Background -----------------------------------------------------------------------------------


def _background(
    seed: int, index: int, size: int, without: Container[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """The canvas [3,size,size] before any object, and the grain [size,size] to go over all."""
    rng = np.random.default_rng([seed, index, _BACKGROUND])
    hue, spread = rng.random(2)
    one, other = colour(hue, 0.38, 0.12), colour(hue + 0.2 + 0.6 * spread, 0.62, 0.12)
    smooth, rough = noise(rng, 5, size), noise(rng, 14, size) - 0.5
    # From here on in single precision: faster, and as exact as a picture can show.
    canvas = (one + (other - one) * smooth + 0.13 * rough).astype(np.float32)
    fewest, most = _PIECES
    for part, kind in enumerate(rng.integers(0, 3, rng.integers(fewest, most + 1))):
        draw = (_draw_line, _draw_plain_shape, _draw_texture)[kind]
        draw(canvas.copy() if part in without else canvas, rng)
    return canvas, 0.05 * (rng.random((size, size), np.float32) - 0.5)


def _draw_line(canvas: np.ndarray, rng: np.random.Generator) -> None:
    turn, hue, light, strength, thickness = rng.random(5)
    window = Window.around(rng.random(2) * UNITS, 14 + 16 * thickness, canvas.shape[-1])
    u, v = window.turned(turn)
    beyond = np.maximum(np.abs(v) - 0.6 - 1.4 * thickness, np.abs(u) - 12 - 16 * thickness)
    grey = colour(hue, 0.25 + 0.5 * light, 0.15)
    window.blend(canvas, grey, np.clip(0.5 - beyond * window.scale, 0, 0.5 + 0.5 * strength))


def _draw_plain_shape(canvas: np.ndarray, rng: np.random.Generator) -> None:
    turn, hue, light, strength, size = rng.random(5)
    shape, radius = SHAPES[rng.integers(len(SHAPES))], 7.0 + 9.0 * size
    window = Window.around(rng.random(2) * UNITS, radius, canvas.shape[-1])
    u, v = window.turned(turn)
    outside = shape(u / radius, v / radius) * radius * window.scale
    paint = colour(hue, 0.3 + 0.4 * light, 0.16) * relief(window, radius, outside)
    window.blend(canvas, paint, np.clip(0.5 - outside, 0.0, 0.55 + 0.45 * strength))


def _draw_texture(canvas: np.ndarray, rng: np.random.Generator) -> None:
    turn, hue, contrast, strength, size = rng.random(5)
    texture, radius = TEXTURES[rng.integers(len(TEXTURES))], 8.0 + 7.0 * size
    window = Window.around(rng.random(2) * UNITS, radius, canvas.shape[-1])
    u, v = window.turned(turn)
    ink = inked(texture, u, v, 6.5 + 2.0 * size, window.scale)
    dark, light = colour(hue, 0.34, 0.16), colour(hue + 0.3 + 0.4 * contrast, 0.66, 0.16)
    # A blot without an outline: its edge sinks into the background.
    lobes = 1.0 + 0.25 * np.sin(3 * np.arctan2(v, u) + figures.TURN * strength)
    faded = 1.6 * (1.0 - np.hypot(u, v) * lobes / radius)
    window.blend(canvas, dark + (light - dark) * ink, np.clip(faded, 0.0, 0.6 + 0.3 * strength))
