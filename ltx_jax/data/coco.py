"""MS COCO: the images of one of its sets; those of the segmentation test are the 5,000 of val2017.

`annotations/instances_val2017.json` and `val2017/` lie in one folder (or `images/val2017/`, where
the original keeps them), and so do those of other sets and of 2014. The objects of an image are all
its instances together, of any category and crowds among them, as in the original's test. The
original leaves out images without an annotation; here they stay, and have no known truth.

A class index is the id of a category, 1 to 90 with gaps: networks of 91 outputs count so.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import held_by
from ltx_jax.data.preprocessing import read_rgb
from ltx_jax.data.segmentation import (
    SegmentationSource,
    refuse_another_size,
    refuse_missing,
    refuse_twice,
)
from ltx_jax.errors import InputError, needed_package
from ltx_jax.files import read_json

_USUAL = "val2017"
_OWN = "give COCO's own file"
# Of a polygon's coordinates from 0, in longer sides of its image.
_FARTHEST = 4
# A set is what its folder of images is called.
_SET = re.compile(r"(?:train|val|test)(20\d\d)")


@dataclass(frozen=True)
class _Entry:
    """One image with its instances (a `data.segmentation.Segmented`).

    Attributes:
      path: of the image.
      height, width: as its annotation says.
      instances: the category of each, or None where they are not told apart, and its polygons or
        run lengths.
    """

    path: Path
    height: int
    width: int
    instances: tuple[tuple[int | None, Any], ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def told(self) -> str:
        shapes = [shape for _, shape in self.instances]
        categories = [category for category, _ in self.instances if category is not None]
        return json.dumps([self.height, self.width, *shapes, *categories])

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(sorted({category for category, _ in self.instances if category is not None}))

    def read(self) -> Example:
        image = read_rgb(self.path, upright=False)
        refuse_another_size(image, self.height, self.width)
        if not self.instances:
            return Example(image)
        if not self.labels:
            return Example(image, objects=self._pixels_of(None))
        return Example(image, self.labels, np.stack([self._pixels_of(one) for one in self.labels]))

    def _pixels_of(self, category: int | None) -> Bool[np.ndarray, "h w"]:
        shapes = tuple(shape for one, shape in self.instances if one == category)
        return union(shapes, self.height, self.width)


class _Set(NamedTuple):
    """A set of images: the folder that holds it and its annotations, and what it is called."""

    root: Path
    name: str

    @property
    def year(self) -> int:
        return int(self.name[-4:])

    @property
    def annotations(self) -> Path:
        return self.root / "annotations" / f"instances_{self.name}.json"

    @property
    def archive(self) -> str:
        return f"annotations_trainval{self.year}.zip"

    @property
    def images(self) -> Path:
        here = self.root / self.name
        return here if here.is_dir() else self.root / "images" / self.name


def open_coco(path: Path, by_class: bool = False) -> SegmentationSource:
    """The images of a set, in the order of their files' names.

    Args:
      path: of the folder of a set's images, `train2014` for one; or of that which holds
        `annotations/` and `val2017/`, for the segmentation test's.
      by_class: whether an image has the categories of its instances as labels, and the masks of
        these; without it any instance is one.

    Raises:
      InputError: where annotations are not there, of another year or damaged, an image is missing
        or listed twice, or pycocotools is not installed.
    """
    needed_package("pycocotools.mask", "COCO", "segmentation")
    asked = _set_at(path)
    file, folder = asked.annotations, asked.images
    if not file.is_file():
        others = ", ".join(sorted(one.name for one in file.parent.glob("instances_*.json")))
        raise InputError(
            f"no {file.relative_to(asked.root)} in {asked.root}"
            f"{f' (only {others})' if others else ''}: unpack {asked.archive} there, or give the "
            "folder of another set's images, as val2014"
        )
    if not folder.is_dir():
        raise InputError(f"no folder {asked.name} in {asked.root}: unpack {asked.name}.zip there")
    entries, called = _entries(asked, by_class)
    there = {one.name for one in held_by(folder)}
    missing = [name for name in entries if name not in there]
    refuse_missing(folder, missing, len(entries), f"unpack {asked.name}.zip again")
    if bare := sum(not entry.instances for entry in entries.values()):
        logging.info("%d of %d images of %s have no annotation", bare, len(entries), file)
    return SegmentationSource.of(list(entries), list(entries.values()), called)


def _set_at(path: Path) -> _Set:
    if (path / "annotations").is_dir() or not _SET.fullmatch(path.name):
        return _Set(path, _USUAL)
    above = path.parent
    return _Set(above.parent if above.name == "images" else above, path.name)


def union(
    instances: tuple[Any, ...], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """The pixels of several instances together.

    Args:
      instances: each a list of polygons [x, y, x, y, …], or run lengths {size, counts}.
      height, width: of the image.

    Raises:
      TypeError, ValueError: for anything else, and for what cannot lie in the image.
    """
    polygons = [one for shape in instances if isinstance(shape, list) for one in shape]
    found = _of_polygons(polygons, height, width)
    for shape in instances:
        if not isinstance(shape, list):
            found |= _of_runs(shape, height, width)
    return found


def _of_polygons(
    polygons: Sequence[Sequence[float]], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    from pycocotools import mask

    # Fewer than three corners enclose nothing, and four numbers would be read as a box.
    whole = [one for one in polygons if len(one) >= 6 and len(one) % 2 == 0]
    if not whole:
        return np.zeros((height, width), np.bool_)
    # Coordinates without end or number crash pycocotools, and take all memory there is.
    far = _FARTHEST * max(height, width)
    for coordinate in chain.from_iterable(whole):
        if not -far <= coordinate <= far:
            raise ValueError(
                f"a polygon has the coordinate {coordinate:g}, far from {height}×{width} pixels"
            )
    encoded = mask.merge(mask.frPyObjects(whole, height, width))
    return np.asarray(mask.decode(encoded)).astype(np.bool_)


def _of_runs(
    shape: Mapping[str, Any], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    size, counts = shape["size"], shape["counts"]
    if size != [height, width]:
        raise ValueError(f"run lengths of {size} for {height}×{width} pixels")
    lengths = counts if isinstance(counts, list) else _uncompressed(counts)
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(
            f"run lengths of {sum(lengths)} pixels for {height}×{width}, the least "
            f"{min(lengths, default=0)}"
        )
    marked = np.arange(len(lengths)) % 2 == 1
    return np.repeat(marked, lengths).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Run lengths of COCO's text: five bits a character, lowest first, of which a sixth says that
    more follow; from the fourth length on the difference to the last but one."""
    lengths: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"run lengths with the character {character!r}")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            value -= (code & 16) << (bits - 4)  # the sign
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = bits = 0
    if bits:
        raise ValueError("run lengths that are cut off")
    return lengths


def _entries(asked: _Set, by_class: bool) -> tuple[dict[str, _Entry], dict[int, str]]:
    """What is told of each image, by its file's name, sorted; and what categories are called."""
    file, folder = asked.annotations, asked.images
    content = read_json(file, f"unpack {asked.archive} again")
    try:
        year = content.get("info", {}).get("year", asked.year)
        categories = content["categories"] if by_class else []
        refuse_twice(file, (one["id"] for one in categories), _OWN, "the category id")
        called = {_index(one["id"]): str(one.get("name", one["id"])) for one in categories}
        instances = defaultdict(list)
        for one in content["annotations"]:
            category = _index(one["category_id"]) if by_class else None
            if by_class and category not in called:
                raise ValueError(f"no category has the id {category}")
            instances[one["image_id"]].append((category, one["segmentation"]))
        images = sorted(content["images"], key=lambda one: one["file_name"])
        refuse_twice(file, (one["file_name"] for one in images), _OWN, "the image")
        refuse_twice(file, (one["id"] for one in images), _OWN, "the image id")
        entries = {
            one["file_name"]: _Entry(
                folder / one["file_name"],
                int(one["height"]),
                int(one["width"]),
                tuple(instances.pop(one["id"], ())),
            )
            for one in images
        }
    except InputError:
        raise
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} holds no instances ({type(error).__name__}: {error}): {_OWN}"
        ) from error
    if year != asked.year:
        raise InputError(
            f"{file} is of {year}: expected the annotations of {asked.name}, unpack "
            f"{asked.archive} again"
        )
    if instances or not entries:
        raise InputError(
            f"{file} lists {len(entries)} images, and {len(instances)} that it annotates are not "
            f"among them: {_OWN}"
        )
    return entries, called


def _index(number: float) -> int:
    """A category's id, which some write as 1.0.

    Raises:
      TypeError, ValueError: where it is no whole number.
    """
    if int(number) != number:
        raise ValueError(f"a category has the id {number!r}, which is no whole number")
    return int(number)
