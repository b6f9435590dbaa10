"""PyTorch's files written without PyTorch: the zip archives that `torch_archive` reads.

The pickle in it is written by hand, since Python's own wants to import what a tensor is made by. It
uses nothing but what `torch.load(weights_only=True)` lets through.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltx_jax.files import replacing
from ltx_jax.weights.torch_archive import STORAGES

_KINDS = {np.dtype(kind): name for name, kind in STORAGES.items()}
_PROTOCOL, _STOP = b"\x80\x02", b"."
_NO_HOOKS = b"ccollections\nOrderedDict\n)R"


def write_archive(path: str | Path, content: Any) -> None:
    """Write a PyTorch file as a whole or not at all; the same bytes for the same content.

    Args:
      path: of the file.
      content: dicts, lists and tuples of arrays (of a type that PyTorch has), which become tensors
        on the CPU, of texts, numbers and None.

    Raises:
      InputError: where it cannot be written.
    """
    storages: list[np.ndarray] = []
    described = _PROTOCOL + _pickled(content, storages) + _STOP
    with replacing(Path(path)) as file, zipfile.ZipFile(file, "w") as archive:
        parts = {"data.pkl": described, "byteorder": b"little", "version": b"3\n"}
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), part)
        for key, storage in enumerate(storages):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), storage.tobytes())


def _pickled(value: Any, storages: list[np.ndarray]) -> bytes:
    """The opcodes that make a value; the arrays in it are appended to the storages."""
    if isinstance(value, np.ndarray):
        storages.append(np.asarray(value, order="C"))
        return _tensor(storages[-1], str(len(storages) - 1))
    if isinstance(value, Mapping):
        items = (_pickled(part, storages) for pair in value.items() for part in pair)
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, list | tuple):
        items = (_pickled(item, storages) for item in value)
        begin, end = (b"](", b"e") if isinstance(value, list) else (b"(", b"t")
        return begin + b"".join(items) + end
    return pickle.dumps(value, protocol=2).removeprefix(_PROTOCOL).removesuffix(_STOP)


def _tensor(array: np.ndarray, key: str) -> bytes:
    """The call that makes a tensor of a storage, by its key."""

    def all_of(*values: Any) -> bytes:
        return b"".join(_pickled(value, []) for value in values)

    kind = f"ctorch\n{_KINDS[array.dtype]}\n".encode()
    storage = b"(" + all_of("storage") + kind + all_of(key, "cpu", array.size) + b"tQ"
    steps = tuple(step // array.itemsize for step in array.strides)
    how = all_of(0, array.shape, steps, False) + _NO_HOOKS
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + how + b"tR"
