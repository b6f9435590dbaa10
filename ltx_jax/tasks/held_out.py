"""What an explainer's masks are worth on the images held out of a pretraining."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float

from ltx_jax.data.examples import Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.pretraining import validate
from ltx_jax.engine.sharding import SPLIT, to_host
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.models.explainee import Explainee


class HeldOut(NamedTuple):
    """Images to choose an epoch by.

    Attributes:
      source: of all images.
      how: they become inputs.
      numbers: of those held out.
      size: of a batch of them, which the devices of all processes share.
      mesh: these devices.
      chunk: most images in one forward of the explainee.
    """

    source: Source
    how: Preprocessing
    numbers: Sequence[int]
    size: int
    mesh: Mesh
    chunk: int | None


class Judged(NamedTuple):
    """Mean scores by name, and the token masks of the images that can be read, by their number."""

    scores: dict[str, float]
    masks: dict[int, Float[np.ndarray, "g h"]]


def judge(images: HeldOut, explainee: Explainee, explainer: Explainer, trained: Leaves) -> Judged:
    """Score the masks of an explainer; every process comes to the same.

    Args:
      images: held out.
      explainee: the classifier, on the devices.
      explainer: gives the network and its frozen leaves, on the devices.
      trained: its trained leaves, on the devices.

    Raises:
      InputError: where no image can be read.
    """
    scores: list[dict[str, np.ndarray]] = []
    masks: dict[int, np.ndarray] = {}
    for first in range(0, len(images.numbers), images.size):
        numbers = np.asarray(images.numbers[first : first + images.size])
        pixels, readable = _load(images, numbers, explainee.image_shape)
        found = validate(explainee, explainer, trained, pixels, images.mesh, images.chunk)
        found, readable = to_host((found, readable))
        taken = np.flatnonzero(readable[: len(numbers)])
        scores.append({name: values[taken] for name, values in found.scores.items()})
        masks |= dict(zip(numbers[taken].tolist(), found.masks[taken], strict=True))
    if not masks:
        raise InputError("none of the images held out for validation can be read: give more images")
    return Judged(
        {name: float(np.mean(np.concatenate([s[name] for s in scores]))) for name in scores[0]},
        masks,
    )


def _load(images: HeldOut, numbers: np.ndarray, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """This process's share of a batch on the devices, filled up, and which of it can be read."""
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
    known = [image for image in loaded if image is not None] or [np.zeros(shape, np.uint8)]
    nothing = np.zeros_like(known[0])
    pixels = np.stack([nothing if image is None else image for image in loaded])
    readable = np.array([image is not None for image in loaded])
    split = NamedSharding(images.mesh, SPLIT)
    pixels, readable = (
        jax.make_array_from_process_local_data(split, share) for share in (pixels, readable)
    )
    return pixels, readable
