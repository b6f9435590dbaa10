"""What the original LTX code leaves of each image (`objects_pkl/N.pkl`), read without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ltx_jax.errors import InputError
from ltx_jax.weights.torch_archive import read_arrays

_PARTS = ("auc", "vis", "original_image", "epoch_idx")
_NUMBERED = "ILSVRC2012_val_"  # names of ImageNet's images go on with a number, from 1


class OriginalResult(NamedTuple):
    """One image's result.

    Attributes:
      auc: the score that selected the mask, in percent.
      step: of the mask, from 0.
      mask: [H,W], of pixels.
      image: [H,W,3], as the explainer took it: normalised.
    """

    auc: float
    step: int
    mask: Float[np.ndarray, "H W"]
    image: Float[np.ndarray, "H W 3"]


def read_result(path: Path) -> OriginalResult:
    """The result in a file.

    Raises:
      InputError: where it is missing, damaged, or holds anything but such a result.
    """
    found = read_arrays(path)
    if not isinstance(found, dict) or not set(_PARTS) <= set(found):
        raise InputError(
            f"{path} is no result of the original: expected {', '.join(_PARTS)}; give its folder "
            "objects_pkl"
        )
    auc, mask, image, step = (found[name] for name in _PARTS)
    mask, image = _part(path, "vis", mask, 1), _part(path, "original_image", image, 3)
    if mask.shape[:2] != image.shape[:2]:
        raise InputError(
            f"{path} holds a mask of {mask.shape[:2]} for an image of {image.shape[:2]}: expected "
            "one of its pixels; write the file again"
        )
    for name, number in (("auc", auc), ("epoch_idx", step)):
        if not isinstance(number, int | float):
            raise InputError(
                f"{path} holds {type(number).__name__} as {name}: expected a number; write the "
                "file again"
            )
    return OriginalResult(float(auc), int(step), mask[..., 0], image)


def _part(path: Path, name: str, array: Any, channels: int) -> np.ndarray:
    """One of its arrays, channels last."""
    found = isinstance(array, np.ndarray)
    if not found or array.dtype.kind != "f" or array.shape[:2] != (1, channels) or array.ndim != 4:
        told = f"{array.dtype} {array.shape}" if found else type(array).__name__
        raise InputError(
            f"{path} holds {told} as {name}: expected floats [1,{channels},H,W]; write the file "
            "again"
        )
    return np.moveaxis(array[0], 0, -1).astype(np.float32)


def result_files(folder: Path) -> dict[int, Path]:
    """The files N.pkl of a folder by their number."""
    return {int(p.stem): p for p in folder.glob("*.pkl") if p.stem.isdecimal()}


def numbers_of(names: Sequence[str]) -> list[int]:
    """The number of each image's result: that of ImageNet's validation images less 1 where all are
    named so, the names themselves where they are numbers, else the places of the images."""
    stems = [Path(name).stem for name in names]
    if all(stem.isdecimal() for stem in stems):
        return [int(stem) for stem in stems]
    if all(stem.startswith(_NUMBERED) and stem[len(_NUMBERED) :].isdecimal() for stem in stems):
        return [int(stem[len(_NUMBERED) :]) - 1 for stem in stems]
    return list(range(len(names)))
