"""PASCAL VOC: images by the lists of a year, with the pixels of their objects.

`VOCdevkit/VOC2012` has lists, of which `ImageSets/Segmentation/val.txt` is the segmentation test's
(1,449 images) and `ImageSets/Main/` has those of all images; the images `JPEGImages/NAME.jpg`; what
is in them, `Annotations/NAME.xml`; and of some palette pictures `SegmentationClass/NAME.png`: 0 is
the background, 1 to 20 an object of a class, and 255, around the objects, counts neither way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8

from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import held_by
from ltx_jax.data.labels import read_lines
from ltx_jax.data.preprocessing import read_rgb
from ltx_jax.data.segmentation import (
    SegmentationSource,
    refuse_another_size,
    refuse_missing,
    refuse_twice,
)
from ltx_jax.errors import InputError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
VOID = 255
_YEAR = "VOC2012"
_ARCHIVES = {
    "VOC2007": "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
    _YEAR: "VOCtrainval_11-May-2012.tar",
}
_LIST = Path("ImageSets", "Segmentation", "val.txt")


@dataclass(frozen=True)
class _Entry:
    """One image (a `data.segmentation.Segmented`).

    Attributes:
      image: where it is.
      classes: its palette picture; None where it has none.
      labels: the classes of its objects, ascending.
      by_class: whether the classes of objects are told apart.
    """

    image: Path
    classes: Path | None
    labels: tuple[int, ...] = ()
    by_class: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.image,) if self.classes is None else (self.image, self.classes)

    @property
    def told(self) -> str:
        return ""

    def read(self) -> Example:
        image = read_rgb(self.image, upright=False)
        if self.classes is None:
            return Example(image)
        indices = _read_indices(self.classes)
        refuse_another_size(image, *indices.shape)
        void = indices == VOID
        if not self.by_class:
            return Example(image, void=void, objects=(indices > 0) & ~void)
        if (wrong := indices[~void].max(initial=0)) > len(CLASSES):
            raise ValueError(f"its segmentation has the class {wrong}, and VOC {len(CLASSES)}")
        masks = [indices == label + 1 for label in self.labels]
        return Example(image, self.labels, np.stack(masks) if masks else None, void)


def open_voc(path: Path, by_class: bool = False, difficult: bool = True) -> SegmentationSource:
    """The images of a list, in its order.

    Args:
      path: of a list, `ImageSets/Main/train.txt` for one; or of VOC2012, of VOCdevkit, or of the
        folder that holds it, for the segmentation test's.
      by_class: whether an image has the classes of its objects as labels, by their alphabetical
        order from 0, and the masks of these; without it any object is one.
      difficult: whether objects count that are marked so.

    Raises:
      InputError: where a list or one of its images, palette pictures (of a list of the
        segmentation's) or annotations (by class) is not there, an image is listed twice, or an
        annotation is damaged.
    """
    listed = _usual_list(path) if path.is_dir() else path.absolute()
    if listed.parent.parent.name != "ImageSets":
        raise InputError(
            f"{path} is no list of VOC's: expected one that lies in ImageSets, as Main/train.txt"
        )
    root, names = listed.parents[2], read_lines(listed)
    remedy = f"unpack {_ARCHIVES.get(root.name, 'its archive')} again"
    if not names:
        raise InputError(f"{listed} lists nothing: {remedy}")
    refuse_twice(listed, names, "list each image once")
    images = _all_in(root / "JPEGImages", names, ".jpg", remedy)
    pictures: Sequence[Path | None] = (
        _all_in(root / "SegmentationClass", names, ".png", remedy)
        if listed.parent.name == "Segmentation"
        else _some_in(root / "SegmentationClass", names, ".png")
    )
    labels: Sequence[tuple[int, ...]] = [()] * len(names)
    if by_class:
        annotations = _all_in(root / "Annotations", names, ".xml", remedy)
        labels = [_labels(one, difficult, remedy) for one in annotations]
    each = zip(images, pictures, labels, strict=True)
    entries = [_Entry(*one, by_class) for one in each]
    called = dict(enumerate(CLASSES)) if by_class else {}
    return SegmentationSource.of([image.name for image in images], entries, called)


def _usual_list(path: Path) -> Path:
    """The segmentation test's, in a folder or below it."""
    places = [path, path / _YEAR, path / "VOCdevkit" / _YEAR]
    others = {one.name for one in (path, *path.glob("VOC2*"), *path.glob("VOCdevkit/VOC2*"))}
    years = sorted(name for name in others - {_YEAR} if name.startswith("VOC2"))
    usable = [place for place in places if place.name not in years and (place / _LIST).is_file()]
    if not usable:
        but = f" (but {years[-1]})" if years else ""
        or_list = f", or give a list of {years[-1]}'s, as ImageSets/Main/train.txt" if years else ""
        raise InputError(
            f"no {_YEAR} with {_LIST} in {path}{but}: unpack {_ARCHIVES[_YEAR]} there{or_list}"
        )
    return usable[0] / _LIST


def _all_in(folder: Path, names: Sequence[str], ending: str, remedy: str) -> list[Path]:
    """A file for each name; none may be missing."""
    files = _some_in(folder, names, ending)
    missing = [f"{name}{ending}" for name, file in zip(names, files, strict=True) if file is None]
    refuse_missing(folder, missing, len(names), remedy)
    return [file for file in files if file is not None]


def _some_in(folder: Path, names: Sequence[str], ending: str) -> list[Path | None]:
    """A file for each name, or None where it is not there."""
    there = {entry.name for entry in held_by(folder)}
    files = (f"{name}{ending}" for name in names)
    return [folder / file if file in there else None for file in files]


def _labels(annotation: Path, difficult: bool, remedy: str) -> tuple[int, ...]:
    """Classes of the objects that an annotation tells of."""
    try:
        names = set(_objects(annotation, difficult))
        return tuple(sorted(CLASSES.index(name) for name in names))
    except Exception as error:  # a damaged file breaks the parser in more ways than it names
        reason = " ".join(str(error).split())
        raise InputError(f"{annotation} is no annotation of VOC's ({reason}): {remedy}") from error


def _objects(annotation: Path, difficult: bool) -> Iterator[str]:
    root = ElementTree.parse(annotation).getroot()
    if root.tag != "annotation":
        raise ValueError(f"it holds {root.tag}")
    for one in root.findall("object"):
        if difficult or one.findtext("difficult", "").strip() in ("", "0"):
            name = one.findtext("name", "").strip()
            if name not in CLASSES:
                raise ValueError(f"an object is {name!r}")
            yield name


def _read_indices(path: Path) -> UInt8[np.ndarray, "h w"]:
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode not in ("P", "L"):
            raise ValueError(f"its segmentation is {picture.mode}, not a picture with a palette")
        return np.asarray(picture)
