"""Where images come from: a folder, a list of files, or an array file; and their labels."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from jaxtyping import UInt8

from ltx_jax.data.preprocessing import Preprocessing, preprocess
from ltx_jax.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})


class UnreadableImage(Exception):
    """One image cannot be read; the message says why, in one line."""


class Source(Protocol):
    """Images by number, with a unique name and the labels of each.

    A label is a class index, a tuple of several, or None where it is unknown.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """One a picture, all different."""
        ...

    @property
    def labels(self) -> tuple[int | tuple[int, ...] | None, ...]:
        """One a picture."""
        ...

    def __len__(self) -> int: ...

    def load(self, index: int, how: Preprocessing) -> UInt8[np.ndarray, "H W 3"]:
        """The image at a network's size; raises `UnreadableImage`."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Image files."""

    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, how: Preprocessing) -> UInt8[np.ndarray, "H W 3"]:
        """The image at a network's size; raises `UnreadableImage`."""
        from PIL import Image

        try:
            with Image.open(self.paths[index]) as image:
                return preprocess(image, how)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnreadableImage(reason.replace(str(self.paths[index]), "the file")) from error


@dataclass(frozen=True)
class ArraySource:
    """Images of one size in memory, uint8 [n,h,w,3]."""

    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, how: Preprocessing) -> UInt8[np.ndarray, "H W 3"]:
        """The image at a network's size."""
        image = self.images[index]
        if image.shape[:2] == how.size:
            return image
        from PIL import Image

        return preprocess(Image.fromarray(image), how)


def open_images(
    images: str | Path,
    labels: str | Path | None = None,
    indices: slice | None = None,
    limit: int | None = None,
) -> FileSource | ArraySource:
    """Images and their labels.

    Args:
      images: a folder (searched to its depths), a text file with a path a line (relative to it),
        or an .npz with `images` (uint8 [n,h,w,3], or float in [0,1]) and perhaps `labels`.
      labels: a .json {name: index}, or a text file with "NAME INDEX" lines or with one index a
        line in the order of the images.
      indices: a slice of the images, by their sorted order.
      limit: at most so many of those.

    Raises:
      InputError: where there is nothing to read, or the labels do not match.
    """
    path = Path(images)
    if not path.exists():
        raise InputError(
            f"no images at {path}: give an existing folder, a text file of paths, or an .npz file"
        )
    if path.suffix == ".npz":
        found: FileSource | ArraySource = _open_arrays(path)
    else:
        found = _open_folder(path) if path.is_dir() else _open_list(path)
    if labels is not None:
        given = read_labels(Path(labels), found.names)
        found = _with_labels(found, given)
    chosen = range(len(found))[indices or slice(None)][:limit]
    if not chosen:
        raise InputError(
            f"config.indices and config.limit leave none of the {len(found)} images of {path}: "
            "choose a slice within them"
        )
    return _select(found, chosen)


def iterate(
    source: Source, how: Preprocessing, indices: Iterable[int], ahead: int = 64
) -> Iterator[tuple[int, np.ndarray | UnreadableImage]]:
    """Images in the given order, so many decoded ahead by a thread a core; an unreadable one comes
    as the exception itself."""

    def load(index: int) -> np.ndarray | UnreadableImage:
        try:
            return source.load(index, how)
        except UnreadableImage as error:
            return error

    waiting: deque[tuple[int, Future[np.ndarray | UnreadableImage]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for index in indices:
            waiting.append((index, pool.submit(load, index)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def read_labels(path: Path, names: Sequence[str]) -> tuple[int, ...]:
    """One class index for each name.

    Raises:
      InputError: where labels are missing, are not indices, or their number differs.
    """
    if not path.is_file():
        raise InputError(f"no labels at {path}: give a .json or a text file")
    table = _read_json(path) if path.suffix == ".json" else _read_label_lines(path, names)
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__}: expected {{name: index}}")
    missing = [name for name in names if name not in table and Path(name).name not in table]
    if missing:
        some = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise InputError(
            f"{path} has no label for {len(missing)} of {len(names)} images ({some}): add them, or "
            "leave config.labels out"
        )
    values = [table[name] if name in table else table[Path(name).name] for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(
                f"{path} gives {name} the label {value!r}: expected a class index, 0 or more"
            )
    return tuple(values)


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Class names: a text file with one a line, or a .json list, {"0": name} or {"0": [id, name]}.

    Raises:
      InputError: where the file is missing or of another form.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no class names at {path}: give a .json or a text file with one a line")
    if path.suffix != ".json":
        return tuple(line.strip() for line in _read_text(path).splitlines() if line.strip())
    names = _read_json(path)
    try:
        if isinstance(names, dict):
            names = [names[str(i)] for i in range(len(names))]
        return tuple(str(name if isinstance(name, str) else name[-1]) for name in names)
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(
            f'{path} is no list of class names: expected a list, or {{"0": name, "1": name, …}}'
        ) from error


def _open_folder(folder: Path) -> FileSource:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise InputError(
            f"no images in {folder}: expected files that end in {', '.join(sorted(SUFFIXES))}"
        )
    names = tuple(path.relative_to(folder).as_posix() for path in paths)
    return FileSource(names, (None,) * len(paths), tuple(paths))


def _open_list(path: Path) -> FileSource:
    lines = [line.strip() for line in _read_text(path).splitlines() if line.strip()]
    paths = tuple(path.parent / line for line in lines)
    missing = [line for line, p in zip(lines, paths, strict=True) if not p.is_file()]
    if missing or not lines:
        what = (
            f"{len(missing)} files that do not exist, {missing[0]!r} first" if lines else "nothing"
        )
        raise InputError(f"{path} lists {what}: give the paths of images, one a line")
    twice = (
        {line for line in lines if lines.count(line) > 1} if len(set(lines)) < len(lines) else ()
    )
    if twice:
        raise InputError(f"{path} lists {min(twice)!r} more than once: list each image once")
    return FileSource(tuple(lines), (None,) * len(lines), paths)


def _open_arrays(path: Path) -> ArraySource:
    try:
        with np.load(path) as arrays:
            images = arrays.get("images")
            labels = arrays.get("labels")
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} is not a whole .npz file: write it again") from error
    if images is None or images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        what = "no `images`" if images is None else f"`images` of shape {images.shape}"
        raise InputError(f"{path} has {what}: expected [n,height,width,3], channels last")
    if images.dtype != np.uint8:
        if images.dtype.kind != "f" or not (images.min() >= 0 and images.max() <= 1):
            raise InputError(
                f"`images` in {path} are {images.dtype} from {images.min()} to {images.max()}: "
                "expected uint8, or floats from 0 to 1"
            )
        images = np.round(images * 255).astype(np.uint8)
    if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iu"):
        raise InputError(
            f"`labels` in {path} are {labels.dtype} {labels.shape}: expected one integer for each "
            f"of the {len(images)} images"
        )
    digits = len(str(len(images) - 1))
    names = tuple(f"{i:0{digits}d}" for i in range(len(images)))
    known = (None,) * len(images) if labels is None else tuple(int(label) for label in labels)
    return ArraySource(names, known, images)


def _select(source: FileSource | ArraySource, chosen: range) -> FileSource | ArraySource:
    names = tuple(source.names[i] for i in chosen)
    labels = tuple(source.labels[i] for i in chosen)
    if isinstance(source, ArraySource):
        return ArraySource(names, labels, source.images[chosen.start : chosen.stop : chosen.step])
    return FileSource(names, labels, tuple(source.paths[i] for i in chosen))


def _with_labels(
    source: FileSource | ArraySource, labels: tuple[int, ...]
) -> FileSource | ArraySource:
    if isinstance(source, ArraySource):
        return ArraySource(source.names, labels, source.images)
    return FileSource(source.names, labels, source.paths)


def _read_label_lines(path: Path, names: Sequence[str]) -> dict[str, int]:
    lines = [line.split() for line in _read_text(path).splitlines() if line.strip()]
    try:
        if all(len(line) == 1 for line in lines):
            if len(lines) != len(names):
                raise InputError(
                    f"{path} has {len(lines)} labels for {len(names)} images: give one a line for "
                    "each, or lines of NAME INDEX"
                )
            return {name: int(line[0]) for name, line in zip(names, lines, strict=True)}
        return {" ".join(line[:-1]): int(line[-1]) for line in lines}
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} has a line whose label is no number: expected NAME INDEX, or INDEX alone"
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON ({error.msg}, line {error.lineno}): mend it") from (
            error
        )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as text: give a text file, a folder or an .npz"
        ) from (error)
