"""PASCAL VOC 2012, the 1,449 images of its segmentation's validation set.

`VOCdevkit/VOC2012` has the list `ImageSets/Segmentation/val.txt`, the images `JPEGImages/NAME.jpg`
and palette pictures `SegmentationClass/NAME.png`: 0 is the background, 1 to 20 an object, and 255,
around the objects, counts neither way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ltx_jax.data.examples import Example
from ltx_jax.data.preprocessing import read_rgb
from ltx_jax.data.segmentation import SegmentationSource, refuse_another_size, refuse_missing
from ltx_jax.errors import InputError

VOID = 255
_YEAR = "VOC2012"
_ARCHIVE = "VOCtrainval_11-May-2012.tar"
_LIST = Path("ImageSets", "Segmentation", "val.txt")


@dataclass(frozen=True)
class _Entry:
    """One image with its palette picture (a `data.segmentation.Segmented`)."""

    image: Path
    classes: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return self.image, self.classes

    @property
    def told(self) -> str:
        return ""

    def read(self) -> Example:
        image, indices = read_rgb(self.image, upright=False), _read_indices(self.classes)
        refuse_another_size(image, *indices.shape)
        void = indices == VOID
        return Example(image, void=void, objects=(indices > 0) & ~void)


def open_voc(path: Path) -> SegmentationSource:
    """The validation set, in the order of its list; any object is one.

    Args:
      path: of VOC2012, of VOCdevkit, or of the folder that holds it.

    Raises:
      InputError: where the list or one of its images or palette pictures is not there.
    """
    places = [path, path / _YEAR, path / "VOCdevkit" / _YEAR]
    others = {one.name for one in (path, *path.glob("VOC2*"), *path.glob("VOCdevkit/VOC2*"))}
    years = sorted(name for name in others - {_YEAR} if name.startswith("VOC2"))
    usable = [place for place in places if place.name not in years and (place / _LIST).is_file()]
    if not usable:
        raise InputError(
            f"no {_YEAR} with {_LIST} in {path}{f' (but {years[-1]})' if years else ''}: unpack "
            f"{_ARCHIVE} there"
        )
    root = usable[0]
    names = (root / _LIST).read_text(encoding="utf-8").split()
    if not names:
        raise InputError(f"{root / _LIST} lists nothing: unpack {_ARCHIVE} again")
    folders = {"JPEGImages": ".jpg", "SegmentationClass": ".png"}
    for folder, ending in folders.items():
        files = [f"{name}{ending}" for name in names]
        missing = [file for file in files if not (root / folder / file).is_file()]
        refuse_missing(root / folder, missing, len(names), f"unpack {_ARCHIVE} again")
    entries = [
        _Entry(*(root / folder / f"{name}{ending}" for folder, ending in folders.items()))
        for name in names
    ]
    return SegmentationSource.of([f"{name}.jpg" for name in names], entries)


def _read_indices(path: Path) -> UInt8[np.ndarray, "h w"]:
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode not in ("P", "L"):
            raise ValueError(f"its segmentation is {picture.mode}, not a picture with a palette")
        return np.asarray(picture)
