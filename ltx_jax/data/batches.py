"""Batches of a training: images in an order that seed and epoch decide, loaded ahead of it.

Everything is found by its number, so that a training goes on in the middle of an epoch, in as many
processes as there are then, with the batches that it would have had.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32

from ltx_jax.data.examples import Example, Source, UnreadableImage
from ltx_jax.data.preprocessing import Pixels, Preprocessing
from ltx_jax.errors import InputError, needed_package


@runtime_checkable
class DrawnTargets(Protocol):
    """Targets that are known once an image is read; of several one is drawn."""

    @property
    def nothing(self) -> Any:
        """A dictionary of arrays as `draw` gives, for an image that has no target."""
        ...

    def draw(self, example: Example, rng: np.random.Generator) -> Any:
        """A target of an image, a dictionary of arrays; None where it has none, and another image
        is to stand in its place."""
        ...


# Of each image the class to keep, negative for the predicted one; or which classes it has; or what
# is drawn of the image itself.
Targets = Int32[np.ndarray, " all"] | Bool[np.ndarray, "all classes"] | DrawnTargets


def target_of(targets: Targets, image: int, example: Example, seeds: Sequence[int]) -> Any:
    """The target of an image of this number; None where there is none to be drawn.

    Args:
      targets: of all images.
      image: its number.
      example: the image, read.
      seeds: together they decide what is drawn.
    """
    if isinstance(targets, np.ndarray):
        return targets[image]
    return targets.draw(example, np.random.default_rng([*seeds]))


def stacked(targets: Sequence[Any]) -> Any:
    """Targets of images as arrays [n,...]."""
    if isinstance(targets[0], dict):
        return {name: np.stack([one[name] for one in targets]) for name in targets[0]}
    return np.array(targets)


class Batch(NamedTuple):
    """A process's share of a batch.

    Attributes:
      images: [n,H,W,C], uint8, or float32 in [0,1].
      targets: of each, see `Targets`; a dictionary of arrays [n,...] where they are drawn.
      skipped: for each image that cannot be read, its name and why; the next one of the order that
        can stands in its place.
    """

    images: Pixels
    targets: Any
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Order:
    """The images of all epochs, one after another (a random access source, as grain has it).

    Attributes:
      source: of all images.
      how: they become inputs.
      images: int32, numbers of those to train on; one may be there several times.
      targets: of each image of the source.
      seed: with the epoch's number, of its order.
      batch_size: images of a step; what an epoch leaves over is not taken.
      epochs: there are.
      share: this process's number, and how many share each batch.
    """

    source: Source
    how: Preprocessing
    images: Int32[np.ndarray, " trained"]
    targets: Targets
    seed: int
    batch_size: int
    epochs: int
    share: tuple[int, int] = (0, 1)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return len(self.images) // self.batch_size

    @property
    def together(self) -> int:
        """Images of a batch that are this process's."""
        return self.batch_size // self.share[1]

    def __len__(self) -> int:
        return self.epochs * self.steps * self.together

    def __getitem__(self, number: int) -> tuple[Pixels, Any, tuple[tuple[str, str], ...]]:
        """An image, its target, and what was skipped on the way to it.

        Raises:
          InputError: where no image of the order can be read.
        """
        step, within = divmod(number, self.together)
        epoch, step = divmod(step, self.steps)
        first = step * self.batch_size + self.share[0] * self.together + within
        order, skipped = self._of_epoch(epoch), []
        for further in range(len(order)):
            place = (first + further) % len(order)
            image = int(order[place])
            try:
                example = self.source.load(image, self.how)
            except UnreadableImage as error:
                skipped.append((self.source.names[image], str(error)))
                continue
            target = target_of(self.targets, image, example, [self.seed, epoch, place])
            if target is not None:
                return example.image, target, tuple(skipped)
        if not skipped:
            raise InputError(
                f"none of the {len(order)} images to train on shows anything to learn, of a size "
                "that its features can tell: give others"
            )
        raise InputError(
            f"none of the {len(order)} images to train on can be read, {skipped[0][0]} is one "
            f"({skipped[0][1]}): give others"
        )

    def numbers(self, step: int) -> list[int]:
        """The images of a step, of all processes."""
        epoch, step = divmod(step, self.steps)
        first = step * self.batch_size
        return self._of_epoch(epoch)[first : first + self.batch_size].tolist()

    def _of_epoch(self, epoch: int) -> np.ndarray:
        """The numbers of the images in an epoch's order."""
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.images)
            self._orders.pop(epoch - 2, None)
            self._orders[epoch] = order
        return order

    @cached_property
    def _orders(self) -> dict[int, np.ndarray]:
        return {}


def load(order: Order, first: int, workers: int) -> Generator[Batch, None, None]:
    """The batches of a training from a step on, loaded ahead.

    Args:
      order: of the images.
      first: step from which on.
      workers: processes that load; 0 for threads of this one, as many as cores.

    Raises:
      InputError: where no image can be read, or grain is missing.
    """
    grain = _grain()
    batches = grain.MapDataset.source(order).batch(order.together, batch_fn=_together)[first:]
    threads = os.cpu_count() or 1
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    ahead = batches.to_iter_dataset(reading)
    if workers:
        several = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        ahead = batches.to_iter_dataset(grain.ReadOptions(0, 1)).mp_prefetch(several)
    loading = iter(ahead)
    try:
        yield from loading
    finally:
        loading.close()


def _together(elements: Sequence[tuple[Any, ...]]) -> Batch:
    images, targets, skipped = zip(*elements, strict=True)
    return Batch(np.stack(images), stacked(targets), sum(skipped, ()))


def _grain() -> ModuleType:
    from absl import flags

    grain = needed_package("grain", "pretraining", "pretrain")

    # Its workers are asked for grain's flags, which nobody has parsed in a program without absl.
    for module, of_module in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("grain"):
            for flag in of_module:
                flag.present = flag.present or 1
    return grain
