"""PyTorch's files read without PyTorch, and without running anything that they contain.

A .pth or .ckpt file is a pickle that describes objects, and the raw bytes of each tensor storage.
Since PyTorch 1.6 both lie in a zip archive; before, pickles and storages follow one another: a
magic number, the version of the format, facts of the system that wrote it, the objects, the keys
of the storages, and each storage as its number of values and its bytes. Where tensors are pickled
without PyTorch's own `save`, each of their storages is such an archive of the older form.

Unpickling can run any code, so only what tensors need is let through; every other class becomes a
`Placeholder`, which keeps nothing and does nothing, or is refused where a file is to hold nothing
but arrays. Nothing is allocated on a file's word alone.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.files import is_there

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES: dict[str, Any] = {
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
# What no network's weights refer to. It would not be run in any case, but who wrote it meant harm.
_HOSTILE_MODULES = {
    *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "runpy", "importlib", "pty"),
    *("ctypes", "code", "pdb", "timeit", "webbrowser", "urllib", "http", "multiprocessing"),
}
_HOSTILE_BUILTINS = {"eval", "exec", "compile", "open", "__import__", "breakpoint", "input"}
# All that arrays need of a plain pickle, and of the archives of their storages inside it.
_LOAD = ("torch.storage", "_load_from_bytes")
_OF_ARRAYS = frozenset(
    {("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict"), _LOAD}
)
_OF_STORAGES = frozenset(("torch", name) for name in STORAGES)


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
    dtype: np.dtype


# Of a storage's key, type and number of values: its values, or where they will be.
_Find = Callable[[str, np.dtype, int], np.ndarray]
# Globals by module and name.
_Names = frozenset[tuple[str, str]]


def read_archive(path: str | Path) -> Any:
    """The objects of a PyTorch file: containers and numbers as they are, tensors as numpy arrays,
    which share memory where the tensors do.

    Raises:
      InputError: where the file is missing, damaged, hostile, or of another kind.
    """
    path = Path(path)
    if not is_there(path, Path.is_file):
        raise InputError(f"no file at {path}: give a .pth or .ckpt file")
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        content = path.read_bytes()
        if _begin(io.BytesIO(content)) != _MAGIC:
            raise InputError(
                f"{path} is no PyTorch file, or is damaged: give a .pth or .ckpt file, or fetch it "
                "again"
            )
        return _read_legacy(content)
    except InputError:
        raise
    except Exception as error:  # damaged, a pickle or an archive fails in more ways than are named
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} does not read as a PyTorch file ({told}): expected a whole one; fetch it again"
        ) from error


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise InputError(
                f"{path} is no PyTorch file: it holds no data.pkl; give a .pth or .ckpt file"
            )
        folder = pickles[0].removesuffix("data.pkl")
        room = path.stat().st_size

        def read(name: str) -> bytes:
            # PyTorch does not compress: a part that is larger than the whole is a trap.
            if archive.getinfo(name).file_size > room:
                raise ValueError(f"{name} claims more bytes than the file has")
            return archive.read(name)

        if f"{folder}byteorder" in names and read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        arrays: dict[str, np.ndarray] = {}

        def find(key: str, dtype: np.dtype, _: int) -> np.ndarray:
            if key not in arrays:
                arrays[key] = np.frombuffer(read(f"{folder}data/{key}"), dtype)
            return arrays[key]

        return _unpickle(io.BytesIO(read(pickles[0])), find)


def read_arrays(path: str | Path) -> Any:
    """The objects of a plain pickle: containers, numbers and texts as they are, tensors as numpy
    arrays. No other class or function may stand in it.

    Raises:
      InputError: where the file is missing, damaged, or holds anything else.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        left = len(content)

        def storage(archive: bytes) -> np.ndarray:
            nonlocal left
            left -= len(archive)
            if left < 0:
                raise ValueError("it has its storages read more often than they are there")
            return np.asarray(_read_legacy(archive, _OF_STORAGES))

        return _unpickle(io.BytesIO(content), _no_storage, _OF_ARRAYS, storage)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a file of arrays") from (
            error
        )
    except Exception as error:  # damaged, a pickle fails in more ways than are named
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} is no whole pickle of arrays ({told}): fetch it again, from where you trust"
        ) from error


def _read_legacy(content: bytes, only: _Names | None = None) -> Any:
    stream = io.BytesIO(content)

    def unpickle(find: _Find = _no_storage) -> Any:
        return _unpickle(stream, find, only)

    if unpickle() != _MAGIC:
        raise ValueError("it is none of PyTorch's archives")
    version, system = unpickle(), unpickle()
    if version != _VERSION or not system["little_endian"]:
        raise ValueError(f"its format is {version} of {system}, not {_VERSION}, little-endian")
    arrays: dict[str, np.ndarray] = {}
    room = len(stream.getbuffer())

    def find(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if key not in arrays:
            claimed = sum(array.nbytes for array in arrays.values()) + count * dtype.itemsize
            if not 0 <= claimed <= room:
                raise ValueError(f"storage {key} claims {count} values, more than the file has")
            arrays[key] = np.zeros(count, dtype)
        return arrays[key]

    found = unpickle(find)
    for key in unpickle():
        _fill(arrays[key], stream)
        del arrays[key]
    if arrays:
        raise ValueError(f"{len(arrays)} of its storages are missing")
    return found


def _begin(stream: io.BytesIO) -> Any:
    """The first pickle; None where there is none."""
    try:
        return _unpickle(stream, _no_storage)
    except Exception:  # any other file begins with whatever it does
        return None


def _fill(array: np.ndarray, stream: io.BytesIO) -> None:
    """Read a storage's values to where the tensors that were made of it expect them."""
    count, content = stream.read(8), stream.read(array.nbytes)
    if count != len(array).to_bytes(8, "little") or len(content) != array.nbytes:
        raise ValueError(f"a storage of {len(array)} values is cut off")
    array[:] = np.frombuffer(content, array.dtype)


def _no_storage(key: str, _: np.dtype, __: int) -> np.ndarray:
    raise ValueError(f"storage {key} is out of place")


def _unpickle(
    stream: io.BytesIO,
    find: _Find,
    only: _Names | None = None,
    load: Callable[[bytes], np.ndarray] | None = None,
) -> Any:
    """The objects of the pickle where the stream stands, which is left behind it.

    Args:
      stream: at its beginning.
      find: the values of a storage.
      only: globals that may stand in it; where not given others become placeholders.
      load: the values of an archive that stands in it.
    """
    start, room = stream.tell(), len(stream.getbuffer())
    # Walked through beforehand: a length beyond the end is noticed before it is allocated, as is
    # a memo's index, up to which the unpickler makes room.
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("PUT", "LONG_BINPUT") and not 0 <= (argument or 0) <= room:
            raise ValueError(f"memo {argument} in a file of {room} bytes")
    stream.seek(start)
    return _Unpickler(stream, find, only, load).load()


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        stream: io.BytesIO,
        find: _Find,
        only: _Names | None,
        load: Callable[[bytes], np.ndarray] | None,
    ) -> None:
        super().__init__(stream)
        self._find, self._only, self._load = find, only, load

    def find_class(self, module: str, name: str) -> Any:
        if self._only is not None and (module, name) not in self._only:
            raise ValueError(f"it holds {module}.{name}, which was not run, and is no array's")
        if (module, name) == _LOAD and self._load is not None:
            return partial(self._load)
        # Functions are wrapped anew each time: a pickle may set attributes of what it is given.
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return partial(_tensor)
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return partial(_data)
        if module == "torch._utils" and name.startswith("_rebuild"):
            raise ValueError(f"it holds tensors of {name}, not plain ones: save floats, dense")
        if module == "torch" and name in STORAGES:
            return _Storage(np.dtype(STORAGES[name]))
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module.partition(".")[0] in _HOSTILE_MODULES or (
            module in ("builtins", "__builtin__") and name in _HOSTILE_BUILTINS
        ):
            raise ValueError(f"it asks to run {module}.{name}, which was not done: do not trust it")
        return Placeholder

    def persistent_load(self, pid: Any) -> Any:
        kind, storage, key, *rest = pid
        if kind == "module":  # a pickled network's class and its source
            return storage
        if not isinstance(storage, _Storage):
            raise ValueError("its storages are of a type that is no weights'")
        _, count, *view = rest
        array = self._find(key, storage.dtype, count)
        return _viewed(array, *view[0][1:]) if view and view[0] else array


def _viewed(array: np.ndarray, offset: int, count: int) -> np.ndarray:
    """The part of a storage that old files call a storage as well."""
    if not 0 <= offset <= offset + count <= len(array):
        raise ValueError("a view reaches beyond its storage")
    return array[offset : offset + count]


def _data(data: Any, *_: Any) -> Any:
    return data


def _tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    if 0 in size:
        return np.zeros(size, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or last >= len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    if math.prod(size) > len(storage):
        raise ValueError("a tensor repeats the values of its storage: save a clone of it")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps)
