"""What checks against reference numbers share: files of a folder, and rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltx_jax.errors import InputError

Arrays = dict[str, np.ndarray]


class Row(NamedTuple):
    """One line of the table; `error` is in the unit of `limit`."""

    quantity: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within its limit; NaN is not."""
        return self.error <= self.limit


def worst(ours: Any, theirs: Any) -> float:
    """The largest difference; infinite where the shapes differ."""
    ours = np.asarray(ours, np.float64)
    if ours.shape != np.shape(theirs):
        return float("inf")
    return float(np.max(np.abs(ours - theirs)))


def file_of(folder: Path, name: str) -> Path:
    """A file of a folder.

    Raises:
      InputError: where it is missing.
    """
    if not (folder / name).is_file():
        raise InputError(f"{folder} has no {name}: give a folder of reference numbers")
    return folder / name


def arrays_of(folder: Path, name: str) -> Arrays:
    """All arrays of an .npz file of a folder.

    Raises:
      InputError: where it is missing.
    """
    with np.load(file_of(folder, name)) as arrays:
        return dict(arrays)
