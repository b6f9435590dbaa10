"""Data sets that TensorFlow Datasets has prepared as ArrayRecord files, read without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import digest_of_files, or_unreadable
from ltx_jax.data.preprocessing import Pixels, Preprocessing, as_rgb
from ltx_jax.errors import InputError, needed_package
from ltx_jax.progress import progress_bar

# NAME[/CONFIG][:VERSION]:SPLIT, as TFDS writes the parts.
_NAME = re.compile(
    r"(?P<name>\w+(?:/[\w.+-]+)?)(?::(?P<version>[\d*]+(?:\.[\d*]+){2}))?:(?P<split>.+)"
)
# Records whose labels are read at a time: each holds an image.
_AT_A_TIME = 1024


@dataclass(frozen=True)
class TfdsSource:
    """A split of a prepared data set (a `data.examples.Source`).

    Attributes:
      names: the number of each image in the split.
      rows: these numbers, ascending.
      records: of the split, by number; images as they were encoded.
      files: that hold the split.
      split: as it was asked for.
    """

    names: tuple[str, ...]
    rows: Sequence[int]
    records: Sequence[Mapping[str, Any]]
    files: tuple[Path, ...]
    split: str
    has_masks = False

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """Class indices of each, ascending; () where unknown. All records are read for them, once.

        Raises:
          InputError: where labels are no indices.
        """
        found: list[tuple[int, ...]] = []
        with ThreadPoolExecutor() as several, progress_bar(len(self), "labels", "read") as bar:
            for begin in range(0, len(self), _AT_A_TIME):
                rows = self.rows[begin : begin + _AT_A_TIME]
                found += several.map(lambda row: _labels(self.records[row]), rows)
                bar.update(len(rows))
        return tuple(found)

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size; raises `UnreadableImage`."""
        with or_unreadable(self.files[0]):
            record = self.records[self.rows[index]]
            image = _decoded(record["image"])
        return Example(image, _labels(record)).preprocessed(how)

    def digest(self) -> str:
        """Of the bytes of the split's files, labels among them, and which images are taken."""
        return digest_of_files([self.split, repr(self.rows)], self.files)

    def only(self, rows: Sequence[int]) -> TfdsSource:
        """Some of the examples, in the order of their numbers here."""
        names = tuple(self.names[row] for row in rows)
        return replace(self, names=names, rows=[self.rows[row] for row in rows])


def open_tfds(name: str) -> TfdsSource:
    """A split of a data set that was prepared in `TFDS_DATA_DIR` (or `~/tensorflow_datasets`).

    Args:
      name: and split, `imagenet2012:validation` or `voc/2007:train`, with a version between where
        it is not to be the latest, `imagenet2012:5.1.0:validation`.

    Raises:
      InputError: where it is not prepared, or cannot be read by number, TFDS is not installed, or
        there is no image in it.
    """
    tfds = needed_package("tensorflow_datasets", "config.dataset=tfds", "tfds")
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise InputError(
            f"config.images is {name!r}: expected a name and a split of TFDS, as "
            "imagenet2012:validation"
        )
    split = parts["split"]
    # With a version TFDS asks the files alone; the code of some data sets imports TensorFlow.
    exact = f"{parts['name']}:{parts['version'] or '*.*.*'}"
    encoded = {"image": tfds.decode.SkipDecoding()}
    try:
        records = tfds.data_source(exact, split=split, download=False, decoders=encoded)
        first = records[0]
        files = records.dataset_info.splits[split].filepaths
    except Exception as error:  # what is not there breaks TFDS in more ways than it names
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"TFDS cannot read {name} ({reason}): prepare it with tfds.builder({parts['name']!r}, "
            "file_format='array_record').download_and_prepare(), where TFDS_DATA_DIR says"
        ) from error
    if not isinstance(first.get("image"), bytes):
        raise InputError(f"{name} has no encoded `image`, but {', '.join(first)}")
    digits = len(str(len(records) - 1))
    rows = range(len(records))
    names = tuple(f"{row:0{digits}d}" for row in rows)
    return TfdsSource(names, rows, records, tuple(map(Path, files)), split)


def _decoded(image: bytes) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(image)) as file:
            return as_rgb(file)
    except UnidentifiedImageError as error:
        raise ValueError("its record holds no image") from error


def _labels(record: Mapping[str, Any]) -> tuple[int, ...]:
    """What the features `label` or `labels` say, or the `label` of its `objects`; what has none, as
    ImageNet's test images, is −1 there."""
    objects = record.get("objects")
    found = record.get("label", record.get("labels"))
    if found is None and isinstance(objects, Mapping):
        found = objects.get("label")
    if found is None:
        return ()
    each = np.asarray(found)
    if each.size and each.dtype.kind not in "iu":
        raise InputError(f"a label is {str(each.ravel()[0])!r}: expected class indices")
    return tuple(sorted({int(label) for label in each.ravel() if label >= 0}))
