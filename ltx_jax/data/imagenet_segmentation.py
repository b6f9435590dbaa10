"""ImageNet-Segmentation (Guillaumin, Küttel & Ferrari, IJCV 2014): the 4,276 images of
`gtsegs_ijcv.mat`.

MATLAB's format 7.3 is HDF5, its axes in reverse: `/value/img[i,0]` refers to an image (3,W,H), and
`/value/gt[i,0]` to a cell whose [0,0] refers to a mask (W,H).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ltx_jax.data.examples import Example
from ltx_jax.data.segmentation import SegmentationSource, refuse_another_size
from ltx_jax.errors import InputError, needed_package

FILE = "gtsegs_ijcv.mat"
_IMAGES, _MASKS = "/value/img", "/value/gt"


@dataclass(frozen=True)
class _Entry:
    """One image of the file (a `data.segmentation.Segmented`)."""

    path: Path
    index: int
    labels = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.path,)

    @property
    def told(self) -> str:
        return str(self.index)

    def read(self) -> Example:
        # Opened for each: HDF5 lets one thread in at a time anyhow, and no file is left open.
        with _h5py().File(self.path) as file:
            image = np.asarray(file[file[_IMAGES][self.index, 0]])
            mask = np.asarray(file[file[file[_MASKS][self.index, 0]][0, 0]])
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != np.uint8 or mask.ndim != 2:
            raise ValueError(
                f"entry {self.index} is {image.dtype} {image.shape} with a mask {mask.shape}: "
                "expected uint8 (3,W,H) and (W,H)"
            )
        image, mask = np.ascontiguousarray(image.transpose(2, 1, 0)), mask.T
        refuse_another_size(image, *mask.shape)
        return Example(image, objects=mask > 0)


def open_imagenet_segmentation(path: Path) -> SegmentationSource:
    """The images of `gtsegs_ijcv.mat`, by their numbers from 0.

    Args:
      path: of the file, or of the folder that holds it.

    Raises:
      InputError: where it is not there or not whole, or h5py is not installed.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"no {FILE} in {path.parent}: give the file, or the folder it lies in")
    try:
        with _h5py().File(path) as file:
            shapes = [getattr(file.get(name), "shape", None) for name in (_IMAGES, _MASKS)]
    except OSError as error:
        reason = re.search(r"\(([^,)]*)", str(error))
        raise InputError(
            f"{path} is no whole HDF5 file ({reason[1] if reason else error}): fetch {FILE} again"
        ) from error
    images, masks = shapes
    if not images or images != masks or len(images) != 2 or not images[0]:
        raise InputError(
            f"{path} has {_IMAGES} of shape {images} and {_MASKS} of shape {masks}: expected [n,1] "
            f"of both, as {FILE} has"
        )
    digits = len(str(images[0] - 1))
    names = [f"{i:0{digits}d}" for i in range(images[0])]
    return SegmentationSource.of(names, [_Entry(path, i) for i in range(images[0])])


def _h5py() -> Any:
    return needed_package("h5py", "ImageNet-Segmentation", "segmentation")
