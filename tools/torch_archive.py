"""Reading PyTorch files without PyTorch, and without running anything they contain.

A .pth or .ckpt file is a zip archive: a pickle that describes objects, and one file a tensor
storage. Unpickling can run any code, so only what tensors need is let through; every other class
becomes a `Placeholder`, which keeps nothing and does nothing.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ltx_jax.errors import InputError

_STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Placeholder:
    """Stands for an object of a class that is not let through."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """What a pickle does to a list's subclass."""

    def extend(self, _: Any) -> None:
        """What a pickle does to a list's subclass."""


class _Storage(NamedTuple):
    dtype: Any


def read_archive(path: str | Path) -> Any:
    """The objects of a PyTorch file: containers and numbers as they are, tensors as numpy arrays.

    Raises:
      InputError: where the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file at {path}: give a .pth or .ckpt file")
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise InputError(f"{path} is no PyTorch file: it holds no data.pkl")
            folder = pickles[0].removesuffix("data.pkl")
            content = archive.read(pickles[0])
            return _Unpickler(content, lambda key: archive.read(f"{folder}data/{key}")).load()
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is damaged, or older than PyTorch 1.6: fetch it again, or load it with torch "
            "and save it anew"
        ) from error
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        raise InputError(f"{path} does not read as a PyTorch file ({error}): fetch it again") from (
            error
        )


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, read: Callable[[str], bytes]) -> None:
        super().__init__(io.BytesIO(content))
        self._read = read
        self._arrays: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda data, *_: data
        if module == "torch" and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return Placeholder

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, storage, key, *_ = pid
        if key not in self._arrays:
            self._arrays[key] = np.frombuffer(self._read(key), storage.dtype)
        return self._arrays[key]


def _tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if offset < 0 or last >= len(storage) or min((*stride, 0)) < 0:
        raise ValueError("a tensor reaches beyond its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()
