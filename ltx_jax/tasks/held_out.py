"""Images held out of a training, to judge what is trained by."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float

from ltx_jax.data.batches import Targets
from ltx_jax.data.examples import Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.sharding import SPLIT, to_host
from ltx_jax.errors import InputError


class HeldOut(NamedTuple):
    """Images to choose an epoch by.

    Attributes:
      source: of all images.
      how: they become inputs.
      targets: of each image of the source, see `Order`.
      numbers: of those held out.
      size: of a batch of them, which the devices of all processes share.
      mesh: these devices.
      shape: of an image.
    """

    source: Source
    how: Preprocessing
    targets: Targets
    numbers: Sequence[int]
    size: int
    mesh: Mesh
    shape: tuple[int, int, int]


class Judged(NamedTuple):
    """What is trained after an epoch: mean scores by name; and where it draws masks, those of the
    images that can be read, by their number."""

    scores: dict[str, float]
    masks: dict[int, Float[np.ndarray, "g h"]]


def of_readable(images: HeldOut, of_batch: Callable[[Array, Array], Any]) -> tuple[list[int], Any]:
    """What a function gives of the images that can be read; every process comes to the same.

    Args:
      images: held out.
      of_batch: images [n,H,W,C] and their targets, on the devices, to a pytree of arrays [n,...].

    Returns:
      The numbers of these images, and the pytree for all of them, on the host.

    Raises:
      InputError: where no image can be read.
    """
    known: list[int] = []
    parts = []
    for first in range(0, len(images.numbers), images.size):
        numbers = np.asarray(images.numbers[first : first + images.size])
        pixels, targets, readable = _load(images, numbers)
        found, readable = to_host((of_batch(pixels, targets), readable))
        taken = np.flatnonzero(readable[: len(numbers)])
        known += numbers[taken].tolist()
        parts.append(jax.tree.map(lambda values, taken=taken: values[taken], found))
    if not known:
        raise InputError("none of the images held out for validation can be read: give more images")
    return known, jax.tree.map(lambda *several: np.concatenate(several), *parts)


def means(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Of scores [n] by name."""
    return {name: float(values.mean()) for name, values in scores.items()}


def _load(images: HeldOut, numbers: np.ndarray) -> tuple[Array, Array, Array]:
    """This process's share of a batch on the devices, filled up: images, their targets, and which
    of them can be read."""
    process, count = jax.process_index(), jax.process_count()
    filled = np.concatenate([numbers, np.repeat(numbers[-1:], images.size - len(numbers))])
    mine = np.split(filled, count)[process].tolist()
    loaded: list[np.ndarray | None] = []
    for i, example in iterate(images.source, images.how, mine):
        if isinstance(example, UnreadableImage):
            logging.warning("skipped %s: %s", images.source.names[i], example)
            loaded.append(None)
        else:
            loaded.append(example.image)
    known = [image for image in loaded if image is not None] or [np.zeros(images.shape, np.uint8)]
    nothing = np.zeros_like(known[0])
    pixels = np.stack([nothing if image is None else image for image in loaded])
    readable = np.array([image is not None for image in loaded])
    split = NamedSharding(images.mesh, SPLIT)
    pixels, targets, readable = (
        jax.make_array_from_process_local_data(split, share)
        for share in (pixels, images.targets[mine], readable)
    )
    return pixels, targets, readable
