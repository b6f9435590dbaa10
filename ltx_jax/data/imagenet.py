"""ImageNet (ILSVRC 2012, 1,000 classes) in the layouts that people have it in.

Training images lie in a folder for each class, named by its WordNet id (`n01440764`), as do
validation images that were sorted so. As published these lie side by side, as
`ILSVRC2012_val_00000001.JPEG` to `…00050000.JPEG`, and a file elsewhere tells what they show:
- the devkit's `data/ILSVRC2012_validation_ground_truth.txt`, a number from 1 to 1,000 for each in
  turn, which its `data/meta.mat` gives an id;
- Kaggle's `LOC_val_solution.csv`, with an id beside each image's name.

A class index is the place of its id among all 1,000 in sorted order, as timm's and torchvision's
weights count.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ltx_jax.data.class_folders import of_folders
from ltx_jax.data.image_files import FileSource, held_by, is_image, kind_of, readable
from ltx_jax.data.labels import GROUND_TRUTH, read_lines, read_rows
from ltx_jax.errors import InputError

CLASSES, VALIDATION_IMAGES = 1000, 50_000
_ID = re.compile(r"n\d{8}")
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.jpe?g", re.IGNORECASE)
# Where images may lie below a folder; Kaggle keeps them at the end of a long way.
_PARTS = [
    f"{above}{part}"
    for above in ("", "CLS-LOC/", "Data/CLS-LOC/", "ILSVRC/Data/CLS-LOC/")
    for part in ("train", "val")
]
_DEVKIT = Path("ILSVRC2012_devkit_t12", "data")
_META, _SOLUTION, _MAPPING = "meta.mat", "LOC_val_solution.csv", "LOC_synset_mapping.txt"
# Folders above the images' in which the files that tell their classes are looked for as well.
_ABOVE = 4


class _Held(NamedTuple):
    """What a folder holds: classes' folders, validation images, other images; by their names."""

    ids: list[str]
    images: list[str]
    others: list[str]


def open_imagenet(path: Path) -> FileSource:
    """A part of ImageNet, in sorted order. Images side by side have no labels where no file tells
    their classes, which is said.

    Args:
      path: of the folder that holds the images or their classes' folders, or of one above it with
        just one such part.

    Raises:
      InputError: where there is something else or several parts, a file that tells classes is
        damaged, or two of them disagree.
    """
    held = _held_by(path)
    if not any(held):
        path = path / _only_part(path)
        held = _held_by(path)
    kinds = zip(("classes' folders", "validation images", "other images"), held, strict=True)
    found = [f"{len(names)} {kind} ({readable(names[0])})" for kind, names in kinds if names]
    if len(found) != 1 or held.others:
        raise InputError(
            f"{path} holds {' and '.join(found) or 'no images'}: expected folders as n01440764, or "
            "images as ILSVRC2012_val_00000001.JPEG, and no others"
        )
    if held.ids:
        return of_folders(path, _indices(path, held.ids))
    return FileSource.of(path, held.images, _labels(path, held.images))


def _held_by(folder: Path) -> _Held:
    held = _Held([], [], [])
    for entry in held_by(folder):
        if _ID.fullmatch(entry.name):
            held.ids.append(entry.name)
        elif _VALIDATION_IMAGE.fullmatch(entry.name):
            held.images.append(entry.name)
        elif is_image(entry.name) and kind_of(entry) == "file":
            held.others.append(entry.name)
    return held


def _only_part(path: Path) -> str:
    parts = [part for part in _PARTS if (path / part).is_dir()]
    if len(parts) != 1:
        raise InputError(
            f"{path} holds {' and '.join(parts) or 'no ImageNet'}: give the folder of the images, "
            "or of their classes' folders"
        )
    return parts[0]


# --- Classes --------------------------------------------------------------------------------------


def _indices(folder: Path, ids: Sequence[str]) -> dict[str, int]:
    """Class indices of folders: a part of them need a list of all."""
    if len(ids) == CLASSES:
        return _places(ids, folder)
    if (file := _nearest(folder, _MAPPING)) is not None:
        places = _places((line.split()[0] for line in read_lines(file)), file)
    elif (file := _nearest(folder, _META)) is not None:
        places = _places(_ids_by_number(file).values(), file)
    else:
        raise InputError(
            f"{folder} holds {len(ids)} of ImageNet's {CLASSES} classes, and no {_MAPPING} or "
            f"{_DEVKIT / _META} above it tells their indices: put one there, or count them alone "
            "with config.labels=folders and no config.dataset"
        )
    if unknown := [one for one in ids if one not in places]:
        raise InputError(
            f"{file} has no {unknown[0]}, which {folder} holds: expected ImageNet's {CLASSES} "
            "classes"
        )
    return {one: places[one] for one in ids}


def _labels(folder: Path, images: Sequence[str]) -> list[tuple[int, ...]]:
    """Class indices of validation images, from what is found of the devkit and of Kaggle."""
    read = {GROUND_TRUTH: _by_devkit, _SOLUTION: _by_solution}
    files = {name: _nearest(folder, name) for name in read}
    told = {file: read[name](file, images) for name, file in files.items() if file is not None}
    if not told:
        logging.info(
            "no labels: neither %s with %s nor %s lies in %s or above it",
            *(_DEVKIT / GROUND_TRUTH, _META, _SOLUTION, folder),
        )
        return [()] * len(images)
    (file, labels), *rest = told.items()
    for other, others in rest:
        for image, one, another in zip(images, labels, others, strict=True):
            if one != another:
                raise InputError(
                    f"{image} is of class {one} in {file}, and {another} in {other}: keep the one "
                    "that is right"
                )
    return [(label,) for label in labels]


def _by_devkit(file: Path, images: Sequence[str]) -> list[int]:
    lines = read_lines(file)
    if len(lines) != VALIDATION_IMAGES:
        raise InputError(
            f"{file} has {len(lines)} lines: expected {VALIDATION_IMAGES}, one for each validation "
            "image"
        )
    ids = _ids_by_number(file.with_name(_META))
    places = _places(ids.values(), file.with_name(_META))
    indices = {str(number): places[one] for number, one in ids.items()}
    for number, line in enumerate(lines, 1):
        if line not in indices:
            raise InputError(
                f"line {number} of {file} is {line!r}: expected a number from 1 to {CLASSES}"
            )
    return [indices[lines[_number(image) - 1]] for image in images]


def _by_solution(file: Path, images: Sequence[str]) -> list[int]:
    rows = read_rows(file, ("ImageId", "PredictionString"))
    # Each box of an image repeats the id.
    ids = {image: boxes.partition(" ")[0] for image, boxes in rows}
    if len(rows) != VALIDATION_IMAGES or len(ids) != VALIDATION_IMAGES:
        raise InputError(
            f"{file} has {len(rows)} lines for {len(ids)} images: expected one for each of "
            f"{VALIDATION_IMAGES}"
        )
    places = _places(ids.values(), file)
    names = [f"ILSVRC2012_val_{_number(image):08d}" for image in images]
    if missing := [name for name in names if name not in ids]:
        raise InputError(f"{file} has no label for {missing[0]}: fetch it again")
    return [places[ids[name]] for name in names]


def _number(image: str) -> int:
    """Of a validation image, from 1."""
    match = _VALIDATION_IMAGE.fullmatch(image)
    assert match is not None
    if not 1 <= int(match[1]) <= VALIDATION_IMAGES:
        raise InputError(
            f"{image} is none of the validation images: expected a number from 1 to "
            f"{VALIDATION_IMAGES}"
        )
    return int(match[1])


def _places(ids: Iterable[str], file: Path) -> dict[str, int]:
    """The class index of each id."""
    each = sorted(set(ids))
    if wrong := [one for one in each if not _ID.fullmatch(one)]:
        raise InputError(f"{file} has the class {wrong[0]!r}: expected a WordNet id as n01440764")
    if len(each) != CLASSES:
        raise InputError(f"{file} has {len(each)} classes: expected ImageNet's {CLASSES}")
    return {one: index for index, one in enumerate(each)}


def _ids_by_number(file: Path) -> dict[int, str]:
    """WordNet ids by the numbers that the devkit gives the classes."""
    from scipy.io import loadmat

    if not file.is_file():
        raise InputError(
            f"no {file}, which gives the numbers of {GROUND_TRUTH} ids: unpack "
            "ILSVRC2012_devkit_t12.tar.gz there"
        )
    try:
        groups = loadmat(file, squeeze_me=True)["synsets"]
        # Those with children are groups of classes.
        leaves = [one for one in groups if one["num_children"] == 0]
        return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in leaves}
    except Exception as error:  # a damaged file breaks SciPy in more ways than it names
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{file} is not the devkit's ({reason}): unpack ILSVRC2012_devkit_t12.tar.gz again"
        ) from error


def _nearest(folder: Path, name: str) -> Path | None:
    """A file in a folder or the nearest above it, or in the devkit there."""
    here = folder.absolute()
    for place in (here, *here.parents[:_ABOVE]):
        for file in (place / name, place / _DEVKIT / name):
            if file.is_file():
                return file
    return None
