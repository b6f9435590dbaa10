"""What is explained: an image with what is known of it, and where such examples come from."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ltx_jax.data.preprocessing import Pixels, Preprocessing, resize_image, resize_masks


class UnreadableImage(Exception):
    """One image cannot be read; the message says why, in one line."""


class Example(NamedTuple):
    """An image and what is known of it.

    Attributes:
      image: [H,W,C] uint8; or float32 in [0,1], which only arrays in memory have.
      labels: class indices; () where unknown.
      masks: [len(labels),H,W] the pixels of each label's object, where they are known.
      void: [H,W] the pixels that count neither way, where there are such.
      objects: [H,W] the pixels of all objects, where a source knows these and not their classes.
      other: another image as networks take it, see `with_next`; None where there is none.
      without: [p,H,W,C] the image without each of its parts, see `with_interventions`; None where
        nobody can make it, or asks for it. One that shows the image itself stands for no part.
    """

    image: Pixels
    labels: tuple[int, ...] = ()
    masks: Bool[np.ndarray, "k H W"] | None = None
    void: Bool[np.ndarray, "H W"] | None = None
    objects: Bool[np.ndarray, "H W"] | None = None
    other: Float32[np.ndarray, "H W C"] | None = None
    without: UInt8[np.ndarray, "p H W C"] | None = None

    def mask_of(self, label: int) -> Bool[np.ndarray, "H W"] | None:
        """The pixels of a class, or of all objects where their classes are not known; None where
        nothing is known of it, or it has none here."""
        found = self.objects
        if self.masks is not None:
            found = np.asarray(self.masks[[one == label for one in self.labels]].any(axis=0))
        return found if found is not None and found.any() else None

    def united(self) -> Example:
        """With all of its objects together, whatever their classes."""
        if self.masks is None:
            return self
        return self._replace(masks=None, objects=np.asarray(self.masks.any(axis=0)))

    def mask_beside(self, label: int) -> Bool[np.ndarray, "H W"] | None:
        """The pixels of the objects of other classes; None where nothing is known of them."""
        if self.masks is None:
            return None
        return np.asarray(self.masks[[one != label for one in self.labels]].any(axis=0))

    def preprocessed(self, how: Preprocessing) -> Example:
        """The example at a network's size: the image and what is known of its pixels together.

        An image that has the size and is to be squashed to it passes through unchanged.
        """
        void, objects = (
            None if one is None else resize_masks(one[None], how)[0]
            for one in (self.void, self.objects)
        )
        masks = None if self.masks is None else resize_masks(self.masks, how)
        return Example(resize_image(self.image, how), self.labels, masks, void, objects)

    def as_input(self) -> Float32[np.ndarray, "H W C"]:
        """The image as networks take it, in [0,1]."""
        return self.image if self.image.dtype == np.float32 else self.image.astype(np.float32) / 255

    def as_picture(self) -> UInt8[np.ndarray, "H W C"]:
        """The image as people look at it."""
        if self.image.dtype == np.uint8:
            return self.image
        return np.round(self.image * 255).astype(np.uint8)


@runtime_checkable
class Source(Protocol):
    """Examples by number, with a unique name and the labels of each."""

    @property
    def names(self) -> tuple[str, ...]:
        """One an example, all different."""
        ...

    @property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """Class indices of each example, as it will have them; () where unknown."""
        ...

    @property
    def has_masks(self) -> bool:
        """Whether the pixels of objects are known, at least of some."""
        ...

    def __len__(self) -> int: ...

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size; raises `UnreadableImage`."""
        ...

    def digest(self) -> str:
        """Another one where the contents or labels of any example are others."""
        ...


@runtime_checkable
class Redrawn(Protocol):
    """A source that can make its images again without one of their parts."""

    def without(self, index: int, how: Preprocessing) -> UInt8[np.ndarray, "p H W C"]:
        """An image without each of its parts, as it is for those it lacks; p for every image."""
        ...


@runtime_checkable
class Named(Protocol):
    """A source that may know what its labels are called."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """By the label; nothing where nobody says."""
        ...


def label_names(source: Source) -> Mapping[int, str]:
    """What the labels of a source are called, as far as it knows."""
    return source.label_names if isinstance(source, Named) else {}


def names_of_all(source: Source, classes: int) -> Mapping[int, str]:
    """What the labels of a source are called, where these are so many classes in all; nothing
    elsewhere. The numbers of a data set's classes may have gaps."""
    names = label_names(source)
    return names if names and max(names) + 1 == classes else {}


# Something more that is known of a source's example of this number.
Addition = Callable[[Source, int, Preprocessing, Example], Example]


def with_next(source: Source, index: int, how: Preprocessing, example: Example) -> Example:
    """The example beside the next image of its source, the first beside the last; beside none
    where that cannot be read, or is the same."""
    following = (index + 1) % len(source)
    if following == index:
        return example
    try:
        return example._replace(other=source.load(following, how).as_input())
    except UnreadableImage:
        return example


def with_interventions(source: Source, index: int, how: Preprocessing, example: Example) -> Example:
    """The example with what it is without each of its parts."""
    assert isinstance(source, Redrawn)
    return example._replace(without=source.without(index, how))


def iterate(
    source: Source,
    how: Preprocessing,
    indices: Iterable[int],
    ahead: int = 64,
    additions: Sequence[Addition] = (),
) -> Iterator[tuple[int, Example | UnreadableImage]]:
    """Examples in the given order with their numbers, so many loaded ahead by a thread a core; for
    an unreadable one comes the exception itself.

    Args:
      source, how, indices, ahead: what is loaded.
      additions: made to each example.
    """

    def load(index: int) -> Example | UnreadableImage:
        try:
            example = source.load(index, how)
        except UnreadableImage as error:
            return error
        for add in additions:
            example = add(source, index, how, example)
        return example

    waiting: deque[tuple[int, Future[Example | UnreadableImage]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for index in indices:
            waiting.append((index, pool.submit(load, index)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
