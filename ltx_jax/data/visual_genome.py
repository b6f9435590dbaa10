"""Visual Genome: 108,077 images with a box around each object, and a name for it in free words.

As published, a folder holds `objects.json`, [{image_id, objects: [{x, y, w, h, names, synsets}]}],
`image_data.json` with the size of each image, and the images `NUMBER.jpg` in `VG_100K/` and
`VG_100K_2/`, by the archive they came in.

A concept is a name, in lower case and without spaces around it or between its words but one; of
several names of an object the first. Those that few images have are left out; a class index is the
place of one among the others in alphabetical order. Its mask is all its boxes in an image.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import held_by
from ltx_jax.data.preprocessing import read_rgb
from ltx_jax.data.segmentation import SegmentationSource, refuse_another_size, refuse_missing
from ltx_jax.errors import InputError
from ltx_jax.files import read_json

_BOXES, _SIZES = "objects.json", "image_data.json"
_FOLDERS = ("VG_100K", "VG_100K_2")
# What a file breaks with that is JSON and not Visual Genome's.
_DAMAGE = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)

Sizes = Mapping[int, tuple[int, int]]


class _Boxes(NamedTuple):
    """The boxes of one image.

    Attributes:
      names: of the object in each.
      sides: left, top, right, bottom, the last two the first pixels beyond it; inside the image.
    """

    names: list[str]
    sides: Int32[np.ndarray, "k 4"]


@dataclass(frozen=True)
class _Entry:
    """One image with its concepts (a `data.segmentation.Segmented`).

    Attributes:
      path: of the image.
      height, width: as `image_data.json` says.
      labels: of its concepts, each once and ascending.
      concepts: what they are called.
      boxes: the place of a box's concept among these, and its left, top, right, bottom.
    """

    path: Path
    height: int
    width: int
    labels: tuple[int, ...]
    concepts: tuple[str, ...]
    boxes: Int32[np.ndarray, "k 5"]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def told(self) -> str:
        return json.dumps([self.height, self.width, self.concepts, self.boxes.tolist()])

    def read(self) -> Example:
        image = read_rgb(self.path, upright=False)
        refuse_another_size(image, self.height, self.width)
        if not self.labels:
            return Example(image)
        masks = np.zeros((len(self.labels), self.height, self.width), np.bool_)
        for place, left, top, right, bottom in self.boxes.tolist():
            masks[place, top:bottom, left:right] = True
        return Example(image, self.labels, masks)


def open_visual_genome(path: Path, least: int = 1) -> SegmentationSource:
    """All images by their numbers, with the concepts that are frequent among them.

    Args:
      path: of the folder with `objects.json`, `image_data.json`, `VG_100K/` and `VG_100K_2/`.
      least: images that have to have a concept.

    Raises:
      InputError: where a file is not there or damaged, an image is missing, or no concept is in so
        many images.
    """
    sizes = _sizes(path / _SIZES)
    boxes = _boxes(path / _BOXES, sizes)
    concepts = _concepts(path / _BOXES, boxes.values(), least)
    places = _places(path, sizes)
    index = {name: label for label, name in enumerate(concepts)}
    none = _Boxes([], np.zeros((0, 4), np.int32))
    entries = [
        _entry(places[number], sizes[number], boxes.get(number, none), index)
        for number in sorted(sizes)
    ]
    if bare := sum(not entry.labels for entry in entries):
        logging.info("%d of %d images of %s have no concept", bare, len(entries), path)
    names = [f"{number}.jpg" for number in sorted(sizes)]
    return SegmentationSource.of(names, entries, dict(enumerate(concepts)))


def _entry(path: Path, size: tuple[int, int], boxes: _Boxes, index: Mapping[str, int]) -> _Entry:
    """One image, of its boxes those of concepts that have an index."""
    kept = [row for row, name in enumerate(boxes.names) if name in index]
    names = [boxes.names[row] for row in kept]
    # The indices are in alphabetical order, and so are these.
    concepts = tuple(sorted(set(names)))
    places = np.array([concepts.index(name) for name in names], np.int32)
    sides = boxes.sides[kept]
    labels = tuple(index[name] for name in concepts)
    return _Entry(path, *size, labels, concepts, np.column_stack([places, sides]))


def _read(file: Path) -> Any:
    if not file.is_file():
        raise InputError(f"no {file.name} in {file.parent}: unpack {file.name}.zip there")
    return read_json(file, f"unpack {file.name}.zip again")


def _damaged(file: Path, what: str, error: Exception) -> InputError:
    return InputError(
        f"{file} holds no {what} ({type(error).__name__}: {error}): give Visual Genome's own file"
    )


def _sizes(file: Path) -> Sizes:
    """Height and width of each image, by its number."""
    content = _read(file)
    try:
        sizes = {int(one["image_id"]): (int(one["height"]), int(one["width"])) for one in content}
    except _DAMAGE as error:
        raise _damaged(file, "sizes of images", error) from error
    if not sizes:
        raise InputError(f"{file} lists no image: give Visual Genome's own file")
    return sizes


def _boxes(file: Path, sizes: Sizes) -> dict[int, _Boxes]:
    """The boxes of each image that has any, by its number, cut to its size; those that have no
    pixel in it, or no name, are left out, and said to be."""
    content = _read(file)
    boxes: dict[int, _Boxes] = {}
    given = found = 0
    try:
        objects: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for image in content:
            objects[int(image["image_id"])] += image["objects"]
        if beyond := sorted(objects.keys() - sizes.keys()):
            raise InputError(
                f"{file} has boxes in the image {beyond[0]}, which {_SIZES} lacks: unpack both "
                "from archives of one version"
            )
        for number, each in objects.items():
            boxes[number] = _cut(each, *sizes[number])
            given, found = given + len(each), found + len(boxes[number].names)
    except _DAMAGE as error:
        raise _damaged(file, "boxes", error) from error
    if found < given:
        logging.warning(
            "%d of %d boxes of %s lie outside their images or have no name, and are left out",
            *(given - found, given, file),
        )
    return boxes


def _cut(objects: Iterable[Mapping[str, Any]], height: int, width: int) -> _Boxes:
    """The boxes of an image of this size that have a name and a pixel in it."""
    names, sides = [], []
    for one in objects:
        x, y, w, h = (int(one[side]) for side in "xywh")
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        name = " ".join(one["names"][0].lower().split()) if one["names"] else ""
        if name and left < right and top < bottom:
            names.append(name)
            sides.append((left, top, right, bottom))
    return _Boxes(names, np.array(sides, np.int32).reshape(-1, 4))


def _concepts(file: Path, boxes: Iterable[_Boxes], least: int) -> list[str]:
    """The names that so many images have, in alphabetical order."""
    images = Counter(name for each in boxes for name in set(each.names))
    kept = sorted(name for name, count in images.items() if count >= least)
    if not kept:
        most = images.most_common(1)
        told = f"the most frequent, {most[0][0]!r}, is in {most[0][1]}" if most else "it has no box"
        raise InputError(
            f"no name of {file} is in {least} images ({told}): set config.least_images lower, or "
            "give Visual Genome's own file"
        )
    return kept


def _places(root: Path, numbers: Iterable[int]) -> dict[int, Path]:
    """Where the image of each number lies."""
    there = {
        entry.name: root / folder / entry.name
        for folder in reversed(_FOLDERS)
        for entry in held_by(root / folder)
    }
    names = {number: f"{number}.jpg" for number in sorted(numbers)}
    missing = [name for name in names.values() if name not in there]
    remedy = f"unpack images.zip and images2.zip there, as {' and '.join(_FOLDERS)}"
    refuse_missing(root, missing, len(names), remedy)
    return {number: there[name] for number, name in names.items()}
