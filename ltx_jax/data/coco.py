"""MS COCO 2017, the 5,000 images of its validation set.

`annotations/instances_val2017.json` and `val2017/` lie in one folder (or `images/val2017/`, where
the original keeps them). The objects of an image are all its instances together, of any category
and crowds among them, as in the original's test. The original leaves out images without an
annotation; here they stay, and have no known truth.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ltx_jax.data.examples import Example
from ltx_jax.data.preprocessing import read_rgb
from ltx_jax.data.segmentation import (
    SegmentationSource,
    needed_package,
    refuse_another_size,
    refuse_missing,
)
from ltx_jax.errors import InputError
from ltx_jax.files import read_json

_YEAR = 2017
_SPLIT = f"val{_YEAR}"
_FILE = Path("annotations", f"instances_{_SPLIT}.json")


@dataclass(frozen=True)
class _Entry:
    """One image with its instances (a `data.segmentation.Segmented`).

    Attributes:
      path: of the image.
      height, width: as its annotation says.
      instances: polygons or run lengths of each.
    """

    path: Path
    height: int
    width: int
    instances: tuple[Any, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def told(self) -> str:
        return json.dumps([self.height, self.width, *self.instances])

    def read(self) -> Example:
        image = read_rgb(self.path, upright=False)
        refuse_another_size(image, self.height, self.width)
        if not self.instances:
            return Example(image)
        return Example(image, objects=union(self.instances, self.height, self.width))


def open_coco(path: Path) -> SegmentationSource:
    """The validation set, in the order of the files' names.

    Args:
      path: of the folder that holds `annotations/` and `val2017/`.

    Raises:
      InputError: where annotations are not there, of another year or damaged, an image is missing,
        or pycocotools is not installed.
    """
    needed_package("pycocotools.mask", "COCO")
    file = path / _FILE
    if not file.is_file():
        others = ", ".join(sorted(one.name for one in path.glob("annotations/instances_*.json")))
        raise InputError(
            f"no {_FILE} in {path}{f' (only {others})' if others else ''}: unpack "
            f"annotations_trainval{_YEAR}.zip there"
        )
    folder = path / _SPLIT if (path / _SPLIT).is_dir() else path / "images" / _SPLIT
    if not folder.is_dir():
        raise InputError(f"no folder {_SPLIT} in {path}: unpack {_SPLIT}.zip there")
    entries = _entries(file, folder)
    there = {one.name for one in folder.iterdir()}
    missing = [name for name in entries if name not in there]
    refuse_missing(folder, missing, len(entries), f"unpack {_SPLIT}.zip again")
    if bare := sum(not entry.instances for entry in entries.values()):
        logging.info("%d of %d images of %s have no annotation", bare, len(entries), file)
    return SegmentationSource.of(list(entries), list(entries.values()))


def union(
    instances: tuple[Any, ...], height: int, width: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """The pixels of several instances together.

    Args:
      instances: each a list of polygons [x, y, x, y, …], or run lengths {size, counts}.
      height, width: of the image.

    Raises:
      ValueError: for anything else.
    """
    from pycocotools import mask

    encoded: list[Any] = []
    for instance in instances:
        if isinstance(instance, list):
            # Fewer than three corners enclose nothing, and four numbers would be read as a box.
            whole = [one for one in instance if len(one) >= 6 and len(one) % 2 == 0]
            encoded += mask.frPyObjects(whole, height, width) if whole else []
            continue
        if instance["size"] != [height, width]:
            raise ValueError(f"run lengths of {instance['size']} for {height}×{width} pixels")
        plain = isinstance(instance["counts"], list)
        encoded.append(mask.frPyObjects(instance, height, width) if plain else instance)
    if not encoded:
        return np.zeros((height, width), np.bool_)
    return np.asarray(mask.decode(mask.merge(encoded))).astype(np.bool_)


def _entries(file: Path, folder: Path) -> dict[str, _Entry]:
    """What is told of each image, by its file's name, sorted."""
    content = read_json(file, f"unpack annotations_trainval{_YEAR}.zip again")
    try:
        year = content.get("info", {}).get("year", _YEAR)
        instances = defaultdict(list)
        for one in content["annotations"]:
            instances[one["image_id"]].append(one["segmentation"])
        images = sorted(content["images"], key=lambda one: one["file_name"])
        entries = {
            one["file_name"]: _Entry(
                folder / one["file_name"],
                int(one["height"]),
                int(one["width"]),
                tuple(instances.pop(one["id"], ())),
            )
            for one in images
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} holds no instances ({type(error).__name__}: {error}): give COCO's own file"
        ) from error
    if year != _YEAR:
        raise InputError(f"{file} is of {year}: expected the annotations of {_SPLIT}")
    if instances or not entries:
        raise InputError(
            f"{file} lists {len(entries)} images, and {len(instances)} that it annotates are not "
            "among them: give COCO's own file"
        )
    return entries
