"""Masks of a run in one .npy, of its full size from the beginning, each row written in place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ltx_jax.errors import InputError
from ltx_jax.files import changing, replacing, sync_file

Mask = Float[np.ndarray, "..."]
_BLOCK = 1 << 20  # values written at once


class MaskFile:
    """One mask a row, float32 [rows, …]; NaN where nothing is known.

    Attributes:
      path: of the .npy.
      shape: (rows, …).
    """

    def __init__(self, path: Path, shared: bool = False) -> None:
        """Open a file that is there.

        Args:
          path: of the .npy.
          shared: whether several processes write to it.

        Raises:
          InputError: where it holds no masks.
        """
        self.path = path
        self._shared = shared
        try:
            stored = np.load(path, mmap_mode="r")
        except Exception as error:  # a damaged header breaks NumPy in more ways than it names
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise InputError(
                f"{path} holds no masks ({reason}): use a work directory that does"
            ) from error
        if stored.dtype != np.dtype("<f4") or not stored.flags.c_contiguous or not stored.ndim:
            raise InputError(
                f"{path} holds {stored.dtype} values of shape {stored.shape}, not float32 masks "
                "row after row: use another work directory"
            )
        if path.stat().st_size != stored.offset + stored.nbytes:
            raise InputError(
                f"{path} has not the size of the masks {stored.shape} that it says it holds: use "
                "another work directory"
            )
        self.shape: tuple[int, ...] = stored.shape
        self._offset = stored.offset

    @classmethod
    def hold(cls, path: Path, shape: tuple[int, ...], shared: bool = False) -> MaskFile:
        """Make a file of a shape, so that a full disk is noticed, or find it, whichever of several
        processes has made it.

        Raises:
          InputError: where the disk does not take it, or it is there with another shape.
        """
        if not path.exists():
            _preallocate(path, shape, over=not shared)
        found = cls(path, shared)
        if found.shape != shape:
            raise InputError(
                f"{path} holds masks of shape {found.shape}, this run makes {shape}: use another "
                "work directory"
            )
        return found

    def write(self, masks: Mapping[int, Mask]) -> None:
        """Write the masks of some rows; the disk is waited for once.

        Raises:
          InputError: where the disk does not take them.
          ValueError: for a mask or a row that the file has no place for.
        """
        rows, *shape = self.shape
        for row, mask in masks.items():
            if not 0 <= row < rows or mask.shape != tuple(shape):
                raise ValueError(f"no place for row {row} of shape {mask.shape} in {self.shape}")
        with changing(self.path, self._shared) as file:
            for row, mask in masks.items():
                file.seek(self._offset + row * 4 * mask.size)
                file.write(mask.astype("<f4").tobytes())
            sync_file(file)

    def row(self, row: int) -> Mask:
        """The mask of a row."""
        return np.array(self.load()[row])

    def load(self) -> Mask:
        """All masks [rows, …], mapped into memory and read as they are needed."""
        return np.load(self.path, mmap_mode="r")


def _preallocate(path: Path, shape: tuple[int, ...], over: bool) -> None:
    """Write NaN everywhere, block by block."""
    description = {"descr": "<f4", "fortran_order": False, "shape": shape}
    values = int(np.prod(shape))
    block = np.full(min(_BLOCK, values), np.nan, "<f4")
    with replacing(path, sync=True, over=over) as file:
        np.lib.format.write_array_header_1_0(file, description)
        for start in range(0, values, _BLOCK):
            file.write(block[: values - start].tobytes())
