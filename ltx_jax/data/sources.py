"""Where images come from: a folder, a list of files, or arrays; and what is known of them."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ltx_jax.data.coco import open_coco
from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import digest_of_files, or_unreadable
from ltx_jax.data.imagenet_segmentation import open_imagenet_segmentation
from ltx_jax.data.preprocessing import HEIC, Preprocessing, read_rgb
from ltx_jax.data.segmentation import SegmentationSource
from ltx_jax.data.voc import open_voc
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of, read_json

SUFFIXES = HEIC | {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".avif", ".gif"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
}

# start:stop or start:stop:step, each of which may be left out.
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(0*[1-9]\d*)?)?")

# Data sets of which pixels of objects are known, by the name that `config.dataset` gives them.
DATASETS: dict[str, Callable[[Path], SegmentationSource]] = {
    "imagenet_segmentation": open_imagenet_segmentation,
    "coco": open_coco,
    "voc": open_voc,
}

# uint8, or float32 in [0,1].
Images = UInt8[np.ndarray, "n h w C"] | Float32[np.ndarray, "n h w C"]


@dataclass(frozen=True)
class FileSource:
    """Image files (a `data.examples.Source`)."""

    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    paths: tuple[Path, ...]
    has_masks = False

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size; raises `UnreadableImage`."""
        with or_unreadable(self.paths[index]):
            image = read_rgb(self.paths[index])
        return Example(image, self.labels[index]).preprocessed(how)

    def digest(self) -> str:
        """Of the bytes of all files, and the labels; a file that cannot be read has none."""
        return digest_of_files([repr(self.labels)], self.paths)

    def only(self, rows: range) -> FileSource:
        """Some of the examples, in their order."""
        return FileSource(
            tuple(self.names[row] for row in rows),
            tuple(self.labels[row] for row in rows),
            tuple(self.paths[row] for row in rows),
        )


@dataclass(frozen=True)
class ArraySource:
    """Images of one size in memory (a `data.examples.Source`).

    Attributes:
      names: one an image, all different.
      labels: class indices of each image; () where unknown.
      images: uint8, or float32 in [0,1]: an example's image is of the same type, and unchanged
        where it has the network's size and is squashed to it.
      masks: the pixels of each label's object; every image then has k labels.
      void: the pixels that count neither way.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    images: Images
    masks: Bool[np.ndarray, "n k h w"] | None = None
    void: Bool[np.ndarray, "n h w"] | None = None

    @property
    def has_masks(self) -> bool:
        """Whether it was given any."""
        return self.masks is not None

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size."""
        masks = None if self.masks is None else self.masks[index]
        void = None if self.void is None else self.void[index]
        return Example(self.images[index], self.labels[index], masks, void).preprocessed(how)

    def digest(self) -> str:
        """Of all arrays."""
        arrays = [x for x in (self.images, self.masks, self.void) if x is not None]
        told = repr([self.labels, *((x.shape, x.dtype.str) for x in arrays)])
        return digest_of([told.encode(), *(np.ascontiguousarray(x).data for x in arrays)])

    def only(self, rows: range) -> ArraySource:
        """Some of the examples, in their order."""
        part = slice(rows.start, rows.stop, rows.step)
        masks = None if self.masks is None else self.masks[part]
        void = None if self.void is None else self.void[part]
        return ArraySource(self.names[part], self.labels[part], self.images[part], masks, void)


def chosen(setting: str, text: str | None, count: int) -> range:
    """The numbers that a slice chooses, in ascending order.

    Args:
      setting: the name of what is read, for the message.
      text: start:stop or start:stop:step as in Python, the step at least 1; None for all.
      count: of the things to choose from.

    Raises:
      InputError: for anything else.
    """
    if text is None:
        return range(count)
    parts = _SLICE.fullmatch(text)
    if parts is None:
        raise InputError(
            f"{setting} is {text!r}: expected start:stop or start:stop:step with a step of 1 or "
            "more, e.g. 100:200 or ::4"
        )
    return range(count)[slice(*(int(part) if part else None for part in parts.groups()))]


def open_images(
    images: str | Path,
    labels: str | Path | None = None,
    indices: str | None = None,
    limit: int | None = None,
    dataset: str | None = None,
) -> FileSource | ArraySource | SegmentationSource:
    """Images and what is known of them.

    Args:
      images: a folder (searched to its depths, links followed, hidden files left out), a
        photograph, a text file with a path a line (relative to it), or an .npz with `images`
        (uint8 [n,h,w,C], or float in [0,1]) and perhaps `labels` (integers [n]), `masks` (bool or 0
        and 1, [n,h,w], the pixels of the labelled object) and `void` (as `masks`, the pixels that
        count neither way). Of a data set its file or folder.
      labels: a .json {name: index}, or a text file with "NAME INDEX" lines or with one index a
        line in the order of the images.
      indices: a slice of the images, by their sorted order; see `chosen`.
      limit: at most so many of those.
      dataset: one of `DATASETS`, in its official layout.

    Raises:
      InputError: where there is nothing to read, or labels or masks do not match.
    """
    refuse_address("config.images", images)
    path = Path(images)
    found = _open(path) if dataset is None else _open_dataset(path, dataset)
    if labels is not None:
        found = replace(found, labels=_each_alone(read_labels(Path(labels), found.names)))
    if isinstance(found, ArraySource) and found.masks is not None and () in found.labels:
        raise InputError(
            f"{path} has `masks` but no `labels` to say of which class: add them, or give "
            "config.labels"
        )
    rows = chosen("config.indices", indices, len(found))[:limit]
    if not rows:
        raise InputError(
            f"config.indices and config.limit leave none of the {len(found)} images of {path}: "
            "choose a slice within them"
        )
    return found.only(rows)


def read_labels(path: Path, names: Sequence[str]) -> tuple[int, ...]:
    """One class index for each name.

    Raises:
      InputError: where labels are missing, are not indices, or their number differs.
    """
    if not path.is_file():
        raise InputError(f"no labels at {path}: give a .json or a text file")
    table = read_json(path) if path.suffix == ".json" else _read_label_lines(path, names)
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__}: expected {{name: index}}")
    bases = Counter(Path(name).name for name in names)
    for name in names:
        base = Path(name).name
        if name not in table and base in table and bases[base] > 1:
            raise InputError(
                f"{path} gives {base!r} a label, a name that {bases[base]} images have ({name} is "
                "one): give their paths as they lie in config.images"
            )
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
    names = read_json(path)
    try:
        if isinstance(names, dict):
            names = [names[str(i)] for i in range(len(names))]
        return tuple(str(name if isinstance(name, str) else name[-1]) for name in names)
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(
            f'{path} is no list of class names: expected a list, or {{"0": name, "1": name, …}}'
        ) from error


def refuse_address(setting: str, given: str | Path) -> None:
    """Refuse what is no path of a file system: nothing, and addresses.

    Raises:
      InputError: naming the setting.
    """
    if not str(given):
        raise InputError(f"{setting} is empty: give a path")
    if re.match(r"\w\w+:/", str(given)):
        raise InputError(
            f"{setting} is {str(given)!r}: expected a path of this machine; mount the bucket, or "
            "copy what it holds"
        )


def _open_dataset(path: Path, dataset: str) -> SegmentationSource:
    if not path.exists():
        raise InputError(f"no data set at {path}: give the folder or file that {dataset} lies in")
    return DATASETS[dataset](path)


def _open(path: Path) -> FileSource | ArraySource | SegmentationSource:
    if not path.exists():
        raise InputError(
            f"no images at {path}: give an existing folder, a photograph, a text file of paths, or "
            "an .npz file"
        )
    if path.suffix == ".npz":
        return _open_arrays(path)
    if path.is_dir():
        return _open_folder(path)
    if path.suffix.lower() in SUFFIXES:
        return FileSource((_readable(path.name),), ((),), (path,))
    return _open_list(path)


def _open_folder(folder: Path) -> FileSource:
    files = sorted(_files_in(folder))
    paths = tuple(path for path in files if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(
            f"no images in {folder}: expected files that end in {', '.join(sorted(SUFFIXES))}"
        )
    others = Counter(p.suffix or p.name for p in files if p.suffix.lower() not in SUFFIXES)
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        logging.info("left out of %s, no images by their names: %s", folder, kinds)
    names = tuple(_readable(path.relative_to(folder).as_posix()) for path in paths)
    return FileSource(names, ((),) * len(paths), paths)


def _files_in(folder: Path) -> Iterator[Path]:
    """Files to the depths of a folder, through links, each folder once; without hidden ones."""
    seen = set()
    for inside, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(inside)
        folders[:] = [] if real in seen else [f for f in folders if not f.startswith(".")]
        for name in () if real in seen else files:
            if not name.startswith(".") and (path := Path(inside, name)).is_file():
                yield path
        seen.add(real)


def _readable(name: str) -> str:
    """A name as text, whatever bytes a file system holds."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _open_list(path: Path) -> FileSource:
    lines = [line.strip() for line in _read_text(path).splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} lists nothing: give the paths of images, one a line")
    paths = tuple(path.parent / line for line in lines)
    missing = [line for line, p in zip(lines, paths, strict=True) if not p.is_file()]
    if missing:
        raise InputError(
            f"{path} lists {len(missing)} files that do not exist, {missing[0]!r} first: give the "
            "paths of images, one a line"
        )
    spelt: dict[str, str] = {}
    for line, p in zip(lines, paths, strict=True):
        if (first := spelt.setdefault(os.path.realpath(p), line)) is not line:
            told = "" if first == line else f", as {first!r} as well"
            raise InputError(f"{path} lists {line!r} more than once{told}: list each image once")
    return FileSource(tuple(lines), ((),) * len(lines), paths)


def _open_arrays(path: Path) -> ArraySource:
    arrays = _read_arrays(path)
    images = _checked_images(path, arrays)
    digits = len(str(len(images) - 1))
    names = tuple(f"{i:0{digits}d}" for i in range(len(images)))
    masks = _checked_masks(path, arrays, "masks", images.shape[:3])
    return ArraySource(
        names,
        _checked_labels(path, arrays, len(images)),
        images,
        None if masks is None else masks[:, None],
        _checked_masks(path, arrays, "void", images.shape[:3]),
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    known = ("images", "labels", "masks", "void")
    try:
        # Opened here, since numpy leaves a file open that is no whole archive.
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in known if name in arrays}
    except Exception as error:  # a damaged header breaks NumPy in more ways than it names
        raise InputError(f"{path} is not a whole .npz file: write it again") from error


def _checked_images(path: Path, arrays: dict[str, np.ndarray]) -> Images:
    images = arrays.get("images")
    # More channels than rows: the channels come first.
    if images is None or images.ndim != 4 or not images.size or images.shape[3] > images.shape[1]:
        what = "no `images`" if images is None else f"`images` of shape {images.shape}"
        raise InputError(f"{path} has {what}: expected [n,height,width,C], channels last")
    if images.dtype == np.uint8:
        return images
    told = str(images.dtype)
    if images.dtype.kind == "f":
        if images.min() >= 0 and images.max() <= 1:
            return images.astype(np.float32)
        told += f" from {images.min()} to {images.max()}"
    raise InputError(f"`images` in {path} are {told}: expected uint8, or floats from 0 to 1")


def _checked_labels(
    path: Path, arrays: dict[str, np.ndarray], count: int
) -> tuple[tuple[int, ...], ...]:
    labels = arrays.get("labels")
    if labels is None:
        return ((),) * count
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"`labels` in {path} are {labels.dtype} {labels.shape}: expected one integer for each "
            f"of the {count} images"
        )
    return _each_alone(labels.tolist())


def _checked_masks(
    path: Path, arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> Bool[np.ndarray, "n h w"] | None:
    masks = arrays.get(name)
    if masks is None:
        return None
    if masks.shape != shape or masks.dtype.kind not in "biuf":
        raise InputError(
            f"`{name}` in {path} are {masks.dtype} {masks.shape}: expected bool {shape}, a value "
            "for each pixel of the images"
        )
    if not ((masks == 0) | (masks == 1)).all():
        raise InputError(
            f"`{name}` in {path} are from {masks.min()} to {masks.max()}: expected bool, or 0 and 1"
        )
    return masks.astype(np.bool_)


def _each_alone(labels: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((label,) for label in labels)


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
        table: dict[str, int] = {}
        for line in lines:
            name, label = " ".join(line[:-1]), int(line[-1])
            if table.setdefault(name, label) != label:
                raise InputError(
                    f"{path} gives {name!r} the labels {table[name]} and {label}: give one"
                )
        return table
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} has a line whose label is no number: expected NAME INDEX, or INDEX alone"
        ) from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as text: give a text file, a folder or an .npz"
        ) from (error)
