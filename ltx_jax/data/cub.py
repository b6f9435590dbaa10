"""CUB-200 (Caltech-UCSD Birds, 2011): in each image a bird of one of 200 species.

As published, `CUB_200_2011` holds `images/001.Black_footed_Albatross/NAME.jpg` … and lists of an
image's number and a value a line: `images.txt` with the paths, `image_class_labels.txt` with
classes from 1, `train_test_split.txt` with 1 for training and 0 for test. `segmentations/`, from an
archive of its own, lies there or beside that folder: a grey picture for each image, which says how
many of the annotators marked a pixel, all of them at 255. The object is what more than half did.

As NN-Explainer's authors have it, the images of `train`, `val` and `test` lie side by side, and
`annotations/train.txt` … beside these folders tell what they show: a pickled list with
{filename, class: {label}} for each. Lines of NAME LABEL will do as well.

A class index is 0 to 199, in the order of the published classes.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NoReturn

import numpy as np
from jaxtyping import UInt8

from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import FileSource, held_by
from ltx_jax.data.labels import read_lines
from ltx_jax.data.preprocessing import read_rgb
from ltx_jax.data.segmentation import (
    SegmentationSource,
    refuse_another_size,
    refuse_missing,
    refuse_twice,
)
from ltx_jax.errors import InputError
from ltx_jax.files import is_there

CLASSES = 200
_IMAGES, _LABELS, _SPLIT = "images.txt", "image_class_labels.txt", "train_test_split.txt"
# What marks the images of a part in `_SPLIT`.
_PARTS = {"train": "1", "test": "0"}
_SEGMENTATIONS = "segmentations"
_AGAIN = "unpack CUB_200_2011.tgz again"
# Every pickle of protocol 2 or later begins so, and no text.
_PICKLED = b"\x80"


@dataclass(frozen=True)
class _Entry:
    """One image with its bird (a `data.segmentation.Segmented`).

    Attributes:
      image: where it is.
      votes: where the annotators' grey picture is.
      label: its class.
    """

    image: Path
    votes: Path
    label: int

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.image, self.votes)

    @property
    def told(self) -> str:
        return ""

    @property
    def labels(self) -> tuple[int, ...]:
        return (self.label,)

    def read(self) -> Example:
        image = read_rgb(self.image, upright=False)
        votes = _read_votes(self.votes)
        refuse_another_size(image, *votes.shape)
        return Example(image, self.labels, votes[None] > 255 / 2)


def open_cub(path: Path) -> FileSource | SegmentationSource:
    """The images of a part in the order of its list; with the pixels of the birds where the
    segmentations are there.

    Args:
      path: of `CUB_200_2011` for all images, or `CUB_200_2011/train` or `…/test` for a part, which
        is no folder; or of the authors' folder `train`, `val` or `test`.

    Raises:
      InputError: where a list is not there or damaged, a label is none of the classes', or an image
        or segmentation is missing.
    """
    here = path.absolute()
    if is_there(here / _IMAGES, Path.is_file):
        return _published(here, None)
    if is_there(here.parent / _IMAGES, Path.is_file):
        return _published(here.parent, here.name)
    return _of_authors(here)


# --- As published ---------------------------------------------------------------------------------


def _published(root: Path, part: str | None) -> FileSource | SegmentationSource:
    if part not in (None, *_PARTS):
        raise InputError(
            f"{root} has no part {part}: give {root / 'train'}, {root / 'test'}, or {root} for all "
            "images"
        )
    paths = _values(root / _IMAGES)
    labels = _labels(root / _LABELS, paths)
    numbers = [*paths] if part is None else _of_part(root / _SPLIT, paths, part)
    inside = [paths[one] for one in numbers]
    refuse_twice(root / _IMAGES, inside, _AGAIN)
    _refuse_missing_inside(root / "images", inside, _AGAIN)
    taken = [labels[one] for one in numbers]
    places = (above / _SEGMENTATIONS for above in (root, root.parent))
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return FileSource.of(root / "images", inside, [(label,) for label in taken])
    votes = [f"{image.rpartition('.')[0]}.png" for image in inside]
    _refuse_missing_inside(folder, votes, f"unpack {_SEGMENTATIONS}.tgz again")
    each = zip(inside, votes, taken, strict=True)
    entries = [_Entry(root / "images" / image, folder / grey, label) for image, grey, label in each]
    return SegmentationSource.of(inside, entries)


def _values(file: Path, images: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a list gives each image, by the image's number.

    Args:
      file: of lines NUMBER VALUE.
      images: by number those that it should have; None for whatever it has.

    Raises:
      InputError: where it is not there, is none, or has other images.
    """
    if not file.is_file():
        raise InputError(f"no {file.name} in {file.parent}: {_AGAIN}")
    rows = [line.split(maxsplit=1) for line in read_lines(file)]
    wrong = [row for row in rows if len(row) != 2]
    if wrong or not rows:
        told = f"has the line {wrong[0][0]!r}" if wrong else "lists nothing"
        raise InputError(f"{file} {told}: expected an image's number and a value a line; {_AGAIN}")
    refuse_twice(file, [number for number, _ in rows], _AGAIN)
    values = dict(rows)
    if images is not None and (others := sorted(values.keys() ^ images.keys())):
        held, lacking = (file.name, _IMAGES) if others[0] in values else (_IMAGES, file.name)
        raise InputError(
            f"{lacking} in {file.parent} lacks the image number {others[0]}, which {held} has: "
            f"{_AGAIN}"
        )
    return values


def _labels(file: Path, images: Mapping[str, str]) -> dict[str, int]:
    """Class indices by the images' numbers; the list counts classes from 1."""
    indices = {str(index + 1): index for index in range(CLASSES)}
    told = _values(file, images)
    for number, text in told.items():
        if text not in indices:
            raise InputError(
                f"{file} gives the image number {number} the class {text!r}: expected 1 to "
                f"{CLASSES}; {_AGAIN}"
            )
    return {number: indices[text] for number, text in told.items()}


def _of_part(file: Path, images: Mapping[str, str], part: str) -> list[str]:
    """The numbers of a part's images, in the order of all."""
    marks = _values(file, images)
    if wrong := [number for number, mark in marks.items() if mark not in _PARTS.values()]:
        raise InputError(
            f"{file} marks the image number {wrong[0]} {marks[wrong[0]]!r}: expected 1 for "
            f"training or 0 for test; {_AGAIN}"
        )
    numbers = [number for number in images if marks[number] == _PARTS[part]]
    if not numbers:
        raise InputError(f"{file} marks no image as of {part}: {_AGAIN}")
    return numbers


def _refuse_missing_inside(folder: Path, inside: Sequence[str], remedy: str) -> None:
    """See that files are there; their folders are listed, since files are many."""
    above = {path.rpartition("/")[0] for path in inside}
    there = {f"{one}/{entry.name}" for one in above for entry in held_by(folder / one)}
    refuse_missing(folder, [path for path in inside if path not in there], len(inside), remedy)


def _read_votes(path: Path) -> UInt8[np.ndarray, "h w"]:
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode not in ("L", "LA", "RGB", "RGBA"):
            raise ValueError(f"its segmentation is {picture.mode}, not a grey picture of 8 bits")
        return np.asarray(picture.convert("L"))


# --- As NN-Explainer's authors have it ------------------------------------------------------------


def _of_authors(folder: Path) -> FileSource:
    listed = folder.parent / "annotations" / f"{folder.name}.txt"
    if not is_there(listed, Path.is_file):
        raise InputError(
            f"no {_IMAGES} in {folder}, and no annotations/{listed.name} beside it: give "
            "CUB_200_2011 as it is published, or a folder of images whose list lies there"
        )
    pairs = _pairs(listed)
    names = [name for name, _ in pairs]
    refuse_twice(listed, names, "give each image once")
    for name, label in pairs:
        if type(label) is not int or not 0 <= label < CLASSES:
            raise InputError(
                f"{listed} gives {name} the label {label!r}: expected 0 to {CLASSES - 1}"
            )
    there = {entry.name for entry in held_by(folder)}
    missing = [name for name in names if name not in there]
    refuse_missing(folder, missing, len(names), f"copy there what {listed} lists")
    return FileSource.of(folder, names, [(label,) for _, label in pairs])


def _pairs(listed: Path) -> list[tuple[str, Any]]:
    """The name and label of each image, without the name's folders."""
    try:
        with listed.open("rb") as file:
            if file.peek(1)[:1] == _PICKLED:
                each = [(one["filename"], one["class"]["label"]) for one in _Plain(file).load()]
            else:
                each = [_parted(line) for line in read_lines(listed)]
        pairs = [(PurePath(name).name, label) for name, label in each]
    except InputError:
        raise
    except Exception as error:  # a damaged file breaks pickle in more ways than it names
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{listed} is no list of images ({reason}): give lines of NAME LABEL, or a pickled "
            "list with {filename, class: {label}} for each"
        ) from error
    if not pairs:
        raise InputError(f"{listed} lists nothing: give a line of NAME LABEL for each image")
    return pairs


def _parted(line: str) -> tuple[str, int]:
    """The name and label of a line."""
    name, *label = line.rsplit(maxsplit=1)
    if not label or not label[0].removeprefix("-").isdecimal():
        raise ValueError(f"a line is {line!r}")
    return name, int(label[0])


class _Plain(pickle.Unpickler):
    """Reads lists, mappings, texts and numbers; what a file would have called is not."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise ValueError(f"it holds a {module}.{name} beside plain texts and numbers")
