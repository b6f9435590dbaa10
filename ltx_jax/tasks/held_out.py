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

from ltx_jax.data.batches import Targets, stacked, target_of
from ltx_jax.data.examples import Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.scoring import padded
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


def of_readable(images: HeldOut, of_batch: Callable[[Array, Any], Any]) -> tuple[list[int], Any]:
    """What a function gives of the images that can be read; every process comes to the same.

    Args:
      images: held out.
      of_batch: images [n,H,W,C] and their targets, on the devices, to a pytree of arrays [n,...].
        An image without a target of its own counts as one that cannot be read.

    Returns:
      The numbers of these images, and the pytree for all of them, on the host.

    Raises:
      InputError: where no image can be read.
    """
    known: list[int] = []
    parts = []
    for first in range(0, len(images.numbers), images.size):
        numbers = np.asarray(images.numbers[first : first + images.size])
        pixels, targets, readable = _load(images, numbers, first)
        found, readable = to_host((of_batch(pixels, targets), readable))
        taken = np.flatnonzero(readable[: len(numbers)])
        known += numbers[taken].tolist()
        parts.append(jax.tree.map(lambda values, taken=taken: values[taken], found))
    if not known:
        raise InputError(
            "none of the images held out can be read, with something to judge by: give more images"
        )
    return known, jax.tree.map(lambda *several: np.concatenate(several), *parts)


def means(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Of scores [n] by name."""
    return {name: float(values.mean()) for name, values in scores.items()}


def _load(images: HeldOut, numbers: np.ndarray, first: int) -> tuple[Array, Any, Array]:
    """This process's share of a batch on the devices, filled up: images, their targets, and which
    of them can be read. `first` is the place of the batch's first image among all."""
    process, count = jax.process_index(), jax.process_count()
    mine = np.split(padded(numbers, images.size), count)[process].tolist()
    place = first + process * len(mine)
    pixels: list[np.ndarray | None] = []
    targets: list[Any] = []
    for i, example in iterate(images.source, images.how, mine):
        image = target = None
        if isinstance(example, UnreadableImage):
            logging.warning("skipped %s: %s", images.source.names[i], example)
        else:
            image, target = example.image, target_of(images.targets, i, example, [place])
        pixels.append(None if target is None else image)
        targets.append(_no_target(images.targets) if target is None else target)
        place += 1
    shown = next((one for one in pixels if one is not None), np.zeros(images.shape, np.uint8))
    nothing = np.zeros_like(shown)
    given = np.stack([nothing if one is None else one for one in pixels])
    readable = np.array([one is not None for one in pixels])
    split = NamedSharding(images.mesh, SPLIT)
    return jax.tree.map(
        lambda share: jax.make_array_from_process_local_data(split, share),
        (given, stacked(targets), readable),
    )


def _no_target(targets: Targets) -> Any:
    return np.zeros_like(targets[0]) if isinstance(targets, np.ndarray) else targets.nothing
