"""Images whose objects are marked pixel by pixel: what sources of segmentation data sets share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from ltx_jax.data.examples import Example
from ltx_jax.data.image_files import digest_of_files, or_unreadable
from ltx_jax.data.preprocessing import Pixels, Preprocessing
from ltx_jax.errors import InputError


@runtime_checkable
class Segmented(Protocol):
    """One image of a data set, on the disk."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it is read from, the image's first."""
        ...

    @property
    def told(self) -> str:
        """What is to be known of it beside the contents of these files."""
        ...

    @property
    def labels(self) -> tuple[int, ...]:
        """Class indices; () where unknown."""
        ...

    def read(self) -> Example:
        """The image at its own size with its objects, or the masks of its labels; raises whatever
        breaks."""
        ...


@dataclass(frozen=True)
class SegmentationSource:
    """Images of a segmentation data set (a `data.examples.Source`).

    Attributes:
      names: one an image, all different.
      labels: class indices of each image; () where unknown.
      images: where each is.
      label_names: what labels are called, where the data set itself says so.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    images: tuple[Segmented, ...]
    label_names: Mapping[int, str] = field(default_factory=dict)
    has_masks = True

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        images: Sequence[Segmented],
        label_names: Mapping[int, str] | None = None,
    ) -> SegmentationSource:
        """Images with the labels that they know."""
        labels = tuple(image.labels for image in images)
        return cls(tuple(names), labels, tuple(images), label_names or {})

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size; where its labels are not those that the data set knows,
        with all objects together.

        Raises:
          UnreadableImage: where a file of it cannot be read.
        """
        image = self.images[index]
        with or_unreadable(image.files[0]):
            read = image.read()
            if self.labels[index] != image.labels:  # its masks are those of other labels
                read = read.united()
            return read._replace(labels=self.labels[index]).preprocessed(how)

    def digest(self) -> str:
        """Of the bytes of all files, what is told of them, and the labels."""
        files = dict.fromkeys(file for image in self.images for file in image.files)
        return digest_of_files([repr(self.labels), *(one.told for one in self.images)], files)

    def only(self, rows: Sequence[int]) -> SegmentationSource:
        """Some of the examples, in the order of their numbers here."""
        names = tuple(self.names[row] for row in rows)
        labels = tuple(self.labels[row] for row in rows)
        images = tuple(self.images[row] for row in rows)
        return SegmentationSource(names, labels, images, self.label_names)


def refuse_another_size(image: Pixels, height: int, width: int) -> None:
    """See that a segmentation is of the image's size.

    Raises:
      ValueError: where it is not.
    """
    if image.shape[:2] != (height, width):
        raise ValueError(
            f"its segmentation is {height}×{width} pixels, and the image "
            f"{image.shape[0]}×{image.shape[1]}"
        )


def refuse_missing(folder: Path, missing: Sequence[str], count: int, remedy: str) -> None:
    """See that no file of a data set is missing.

    Args:
      folder: where they should be.
      missing: names of those that are not there.
      count: of all that should be.
      remedy: what to do.

    Raises:
      InputError: where one is.
    """
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} of {count} files, {missing[0]} first: {remedy}"
        )


def refuse_twice(file: Path, names: Iterable[Hashable], remedy: str, kind: str = "") -> None:
    """See that a list names nothing more than once.

    Args:
      file: of the list.
      names: that it has.
      remedy: what to do.
      kind: of the names, for the message.

    Raises:
      InputError: where one is there again, with that name.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        told = f"{kind} {twice[0]}".strip()
        raise InputError(f"{file} lists {told} more than once: {remedy}")
