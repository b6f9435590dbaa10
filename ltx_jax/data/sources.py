"""Where images come from: a folder, a list of files, arrays, or a data set as it is published; and
what is known of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ltx_jax.data.class_folders import open_class_folders
from ltx_jax.data.coco import open_coco
from ltx_jax.data.cub import open_cub
from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import FileSource, is_image, open_folder, readable
from ltx_jax.data.imagenet import open_imagenet
from ltx_jax.data.imagenet_segmentation import open_imagenet_segmentation
from ltx_jax.data.labels import read_labels, read_lines
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.segmentation import SegmentationSource
from ltx_jax.data.tfds import TfdsSource, open_tfds
from ltx_jax.data.visual_genome import open_visual_genome
from ltx_jax.data.voc import open_voc
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of, is_there, read_npz

CUB, TFDS, VISUAL_GENOME = "cub", "tfds", "visual_genome"
# start:stop or start:stop:step, each of which may be left out.
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(0*[1-9]\d*)?)?")

# uint8, or float32 in [0,1].
Images = UInt8[np.ndarray, "n h w C"] | Float32[np.ndarray, "n h w C"]


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

    def only(self, rows: Sequence[int]) -> ArraySource:
        """Some of the examples, in the order of their numbers here."""
        names = tuple(self.names[row] for row in rows)
        labels = tuple(self.labels[row] for row in rows)
        part: slice | np.ndarray = np.asarray(rows)
        if isinstance(rows, range):  # of a slice NumPy makes no copy
            part = slice(rows.start, rows.stop, rows.step)
        masks = None if self.masks is None else self.masks[part]
        void = None if self.void is None else self.void[part]
        return ArraySource(names, labels, self.images[part], masks, void)


# What opening gives: all of them cut to a part by `only`.
Opened = FileSource | ArraySource | SegmentationSource | TfdsSource
# Data sets by the name that `config.dataset` gives them.
DATASETS: dict[str, Callable[[Path], Opened]] = {
    "imagenet": open_imagenet,
    "imagenet_segmentation": open_imagenet_segmentation,
    "coco": open_coco,
    "voc": open_voc,
    CUB: open_cub,
    VISUAL_GENOME: open_visual_genome,
    TFDS: lambda path: open_tfds(str(path)),
}
# Labels that `config.labels` names by a word, of a data set, or of a folder of one's own.
LABELS: dict[tuple[str | None, str], Callable[[Path], Opened]] = {
    (None, "folders"): open_class_folders,
    ("coco", "classes"): partial(open_coco, by_class=True),
    ("voc", "classes"): partial(open_voc, by_class=True),
    ("voc", "not_difficult"): partial(open_voc, by_class=True, difficult=False),
}
_WORDS = {word for _, word in LABELS}


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


def cut(rows: range, subset: int | None, seed: int, limit: int | None) -> Sequence[int]:
    """Fewer of some numbers, in their order.

    Args:
      rows: to take from.
      subset: so many of them, drawn by chance; None for all.
      seed: of the drawing.
      limit: of those at most the first so many; None for all.

    Raises:
      InputError: where there are not as many as should be drawn.
    """
    if subset is None:
        return rows[:limit]
    if subset > len(rows):
        raise InputError(
            f"config.subset is {subset}, of {len(rows)} images that there are or config.indices "
            "leave: set it lower, or leave it out for all"
        )
    drawn = np.random.default_rng(seed).choice(len(rows), subset, replace=False)
    return [rows[place] for place in sorted(drawn.tolist())][:limit]


def open_images(
    images: str | Path,
    labels: str | Path | None = None,
    indices: str | None = None,
    limit: int | None = None,
    dataset: str | None = None,
    subset: int | None = None,
    seed: int = 0,
    least: int = 1,
) -> Opened:
    """Images and what is known of them.

    Args:
      images: a folder (searched to its depths, links followed, hidden files left out), a
        photograph, a text file with a path a line (relative to it), or an .npz with `images`
        (uint8 [n,h,w,C], or float in [0,1]) and perhaps `labels` (integers [n]), `masks` (bool or 0
        and 1, [n,h,w], the pixels of the labelled object) and `void` (as `masks`, the pixels that
        count neither way). Of a data set its file, folder or name.
      labels: a word of `LABELS`; or a file, see `read_labels`.
      indices: a slice of the images, by their sorted order; see `chosen`.
      limit: at most so many of those, or of the subset.
      dataset: one of `DATASETS`, as it is published.
      subset, seed: of what the slice leaves so many, drawn by the seed; see `cut`.
      least: of Visual Genome, images that have to have a concept.

    Raises:
      InputError: where there is nothing to read, or not enough, or labels or masks do not match.
    """
    refuse_address("config.images", images)
    path = Path(images)
    opener = _opener(dataset, labels, least)
    # Of some a path may name a part that is no file.
    if dataset not in (None, CUB, TFDS) and not is_there(path):
        raise InputError(f"no data set at {path}: give the folder or file that {dataset} lies in")
    found = opener(path)
    if labels is not None and labels not in _WORDS:
        found = _labelled(found, Path(labels))
    if isinstance(found, ArraySource) and found.masks is not None and () in found.labels:
        raise InputError(
            f"{path} has `masks` but no `labels` to say of which class: add them, or give "
            "config.labels"
        )
    rows = cut(chosen("config.indices", indices, len(found)), subset, seed, limit)
    if not rows:
        raise InputError(
            f"config.indices and config.limit leave none of the {len(found)} images of {path}: "
            "choose a slice within them"
        )
    return found.only(rows)


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


def _opener(dataset: str | None, labels: str | Path | None, least: int) -> Callable[[Path], Opened]:
    """What opens images, with labels where a word names them."""
    if labels not in _WORDS:
        return _open if dataset is None else partial(_open_dataset, dataset, least)
    if (dataset, labels) in LABELS:
        return LABELS[dataset, str(labels)]
    known = [name for name, word in LABELS if word == labels]
    needed = " or ".join(f"config.dataset={name}" if name else "no data set" for name in known)
    raise InputError(
        f"config.labels={labels} goes with {needed}, and config.dataset is {dataset}: choose one "
        f"of them, or give a file, as ./{labels}"
    )


def _open_dataset(dataset: str, least: int, path: Path) -> Opened:
    if dataset == VISUAL_GENOME:
        return open_visual_genome(path, least)
    return DATASETS[dataset](path)


def _labelled(found: Opened, path: Path) -> Opened:
    """The same with the labels that a file gives."""
    if isinstance(found, TfdsSource):
        raise InputError(
            f"config.labels is {path}, and images of config.dataset={TFDS} have labels of their "
            "own: leave it out"
        )
    return replace(found, labels=_each_alone(read_labels(path, found.names)))


def _open(path: Path) -> FileSource | ArraySource:
    if not is_there(path):
        raise InputError(
            f"no images at {path}: give an existing folder, a photograph, a text file of paths, or "
            "an .npz file"
        )
    if path.suffix == ".npz":
        return _open_arrays(path)
    if path.is_dir():
        return open_folder(path)
    if is_image(path.name):
        return FileSource((readable(path.name),), ((),), (str(path),))
    return _open_list(path)


def _open_list(path: Path) -> FileSource:
    lines = read_lines(path)
    if not lines:
        raise InputError(f"{path} lists nothing: give the paths of images, one a line")
    paths = tuple(path.parent / line for line in lines)
    missing = [line for line, p in zip(lines, paths, strict=True) if not is_there(p, Path.is_file)]
    if missing:
        raise InputError(
            f"{path} lists {len(missing)} files that do not exist, {missing[0]!r} first: give the "
            "paths of images, one a line"
        )
    spelt: dict[str, str] = {}
    for line, p in zip(lines, paths, strict=True):
        if (first := spelt.get(real := os.path.realpath(p))) is not None:
            told = "" if first == line else f", as {first!r} as well"
            raise InputError(f"{path} lists {line!r} more than once{told}: list each image once")
        spelt[real] = line
    return FileSource(tuple(lines), ((),) * len(lines), tuple(map(str, paths)))


def _open_arrays(path: Path) -> ArraySource:
    arrays = read_npz(path, ("images", "labels", "masks", "void"))
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


def _checked_images(path: Path, arrays: dict[str, np.ndarray]) -> Images:
    images = arrays.get("images")
    # More channels than rows, and than RGB has: the channels come first.
    if (
        images is None
        or images.ndim != 4
        or not images.size
        or images.shape[3] > max(images.shape[1], 3)
    ):
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
