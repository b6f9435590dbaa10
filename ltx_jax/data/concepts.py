"""Scenes of concepts: objects whose shape, pattern, colour and direction are drawn one by one.

Each is a concept with a name, and its mask holds the pixels of all objects that have it. None tells
anything of another, so that what a filter answers to can only be the concept itself. The background
has none of them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

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
from ltx_jax.files import digest_of

SHAPES: Mapping[str, Figure] = {
    "circle": figures.disc,
    "square": figures.square,
    "triangle": figures.triangle,
    "star": figures.star,
    "cross": figures.cross,
    "hexagon": figures.hexagon,
    "ring": figures.ring,
    "crescent": figures.crescent,
    "flower": figures.flower,
    "heart": figures.heart,
}
# Patterns of lines along the first coordinate: they alone have a direction.
LINED: Mapping[str, Figure] = {
    "striped": lambda u, v: figures.stripes(v, u),
    "wavy": figures.waves,
}
PATTERNS: Mapping[str, Figure] = {
    **LINED,
    "plain": figures.plain,
    "checkered": figures.tiles,
    "dotted": figures.dots,
    "hatched": figures.hatching,
    "brick": figures.bricks,
    "spiral": figures.swirl,
}
# Red, green, blue in [0,1].
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.86, 0.08, 0.10),
    "orange": (1.00, 0.52, 0.04),
    "yellow": (0.98, 0.92, 0.12),
    "green": (0.12, 0.66, 0.18),
    "cyan": (0.14, 0.84, 0.88),
    "blue": (0.12, 0.26, 0.90),
    "purple": (0.52, 0.16, 0.76),
    "pink": (1.00, 0.60, 0.78),
}
# Turns of a line as it is read, to the right: downwards is more.
DIRECTIONS: Mapping[str, float] = {
    "horizontal": 0.0,
    "falling": 1 / 8,
    "vertical": 1 / 4,
    "rising": -1 / 8,
}
_KINDS = (SHAPES, PATTERNS, COLOURS, DIRECTIONS)
CONCEPTS: tuple[str, ...] = tuple(name for kind in _KINDS for name in kind)

# Which random stream is drawn from; scenes have others.
_LAYOUT, _BACKGROUND = 3, 4
# How far, in turns, an object and its lines may lean either way.
_TILT, _WOBBLE = 1 / 16, 1 / 100
# How bright the gaps of a pattern are beside its ink.
_GAPS = 0.25


class Look(NamedTuple):
    """What one object looks like, in names.

    Attributes:
      shape, pattern, colour: each one of its kind.
      direction: of the pattern's lines, which those outside of `LINED` do not have.
    """

    shape: str
    pattern: str
    colour: str
    direction: str

    @property
    def concepts(self) -> tuple[int, ...]:
        """The indices in `CONCEPTS` of all that is to be seen of it, ascending."""
        seen = self if self.pattern in LINED else self[:-1]
        return tuple(CONCEPTS.index(name) for name in seen)


class _Object(NamedTuple):
    """One object and where it is, in units.

    Attributes:
      look: of it.
      radius, centre: of the circle around it.
      chances: in [0,1], of its tilt, its lines' wobble, its period and its brightness.
    """

    look: Look
    radius: float
    centre: np.ndarray
    chances: np.ndarray


def concept_scene(
    seed: int,
    index: int,
    objects: tuple[int, int] = (1, 3),
    size: int = UNITS,
    without: Container[int] = (),
) -> Scene:
    """Draw one scene; the same arguments give the same pixels, whatever else is drawn.

    Args:
      seed, index: 0 or more; together they choose the scene.
      objects: fewest and most objects, 0 to 4.
      size: side in pixels; the same scene at another size is the same picture.
      without: the objects to leave out, all else being the same, counted from the back.

    Returns:
      Image [size,size,3], labels [concepts], masks [concepts,size,size]. Objects hide one another:
      of each concept the pixels where one that has it is seen.

    Raises:
      InputError: for a number of objects that does not fit.
    """
    canvas, grain = _background(seed, index, size)
    # Which object is seen at each pixel, from 1; 0 for none.
    seen = np.zeros((size, size), np.int8)
    drawn = _objects(seed, index, objects)
    for number, one in enumerate(drawn, start=1):
        if number - 1 not in without:
            _draw(canvas, seen, number, one)
    masks = np.zeros((len(CONCEPTS), size, size), np.bool_)
    for number, one in enumerate(drawn, start=1):
        masks[list(one.look.concepts)] |= seen == number
    return Scene(finish(canvas, grain), np.array(masks.any((1, 2)), np.float32), masks)


def looks(seed: int, index: int, objects: tuple[int, int] = (1, 3)) -> tuple[Look, ...]:
    """What the objects of a scene look like, from the back to the front, without drawing it; see
    `concept_scene`."""
    return tuple(one.look for one in _objects(seed, index, objects))


@dataclass(frozen=True)
class ConceptSceneSource(DrawnScenes):
    """Scenes of concepts; the labels of one are its concepts, each once and ascending."""

    objects: tuple[int, int] = (1, 3)
    kind, classes = "concepts", CONCEPTS

    @property
    def parts(self) -> list[Container[int]]:
        """Each of the objects."""
        return [(i,) for i in range(self.objects[1])]

    def labels_of(self, index: int) -> tuple[int, ...]:
        """Of a scene by its number; see `looks`."""
        of_each = looks(self.seed, index, self.objects)
        return tuple(sorted({concept for look in of_each for concept in look.concepts}))

    def draw(self, index: int, size: int, without: Container[int] = ()) -> Scene:
        """See `concept_scene`."""
        return concept_scene(self.seed, index, self.objects, size, without)

    def digest(self) -> str:
        """Of what they are drawn from; other scenes are of the same numbers."""
        told = self.kind, self.seed, tuple(self.indices), self.objects
        return digest_of([repr(told).encode()])


def _objects(seed: int, index: int, objects: tuple[int, int]) -> list[_Object]:
    """The objects of a scene from the back to the front."""
    low, high = checked_number(objects)
    rng = np.random.default_rng([seed, index, _LAYOUT])
    count = int(rng.integers(low, high + 1))
    if not count:
        return []
    drawn = rng.integers(0, [len(kind) for kind in _KINDS], (count, len(_KINDS)))
    radii = rng.uniform(*RADII[count], count)
    centres, chances = arrange(rng, radii), rng.random((count, 4))
    return [
        _Object(_look(each.tolist()), float(radius), centre, chance)
        for each, radius, centre, chance in zip(drawn, radii, centres, chances, strict=True)
    ]


def _look(places: Sequence[int]) -> Look:
    """Of each kind the name at its place."""
    return Look(*(list(kind)[place] for kind, place in zip(_KINDS, places, strict=True)))


def _draw(canvas: np.ndarray, seen: np.ndarray, number: int, one: _Object) -> None:
    """Paint one object over the canvas and what it hides, and keep note of where it is seen."""
    tilt, wobble, period, light = one.chances.tolist()
    window = Window.around(one.centre, one.radius, canvas.shape[-1])
    u, v = window.turned(_TILT * (2 * tilt - 1))
    outside = SHAPES[one.look.shape](u / one.radius, v / one.radius) * one.radius * window.scale
    turn = DIRECTIONS[one.look.direction] if one.look.pattern in LINED else 0.0
    along, across = window.turned(turn + _WOBBLE * (2 * wobble - 1))
    ink = inked(PATTERNS[one.look.pattern], along, across, 6.5 + 1.5 * period, window.scale)
    bright = _painted(one.look.colour) * (0.9 + 0.1 * light)
    paint = bright * (_GAPS + (1 - _GAPS) * ink) * relief(window, one.radius, outside)
    inside = outside < 0
    # Edges are soft towards the inside only, so that the mask holds every pixel that changes.
    window.blend(canvas, paint, np.where(inside, np.clip(0.5 - outside, 0.0, 1.0), 0.0))
    seen[window.rows, window.columns][inside] = number


def _painted(name: str) -> Float[np.ndarray, "3 1 1"]:
    return np.array(COLOURS[name])[:, None, None]


def _background(seed: int, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The canvas [3,size,size] before any object, in dull and smooth colours, and the grain
    [size,size] to go over all."""
    rng = np.random.default_rng([seed, index, _BACKGROUND])
    hue, spread = rng.random(2)
    one, other = colour(hue, 0.42, 0.05), colour(hue + spread, 0.66, 0.05)
    smooth, rough = noise(rng, 5, size), noise(rng, 14, size) - 0.5
    canvas = (one + (other - one) * smooth + 0.10 * rough).astype(np.float32)
    return canvas, 0.05 * (rng.random((size, size), np.float32) - 0.5)
