"""Pictures to train on, of which each is known by its first pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ltx_jax.data.examples import Example, UnreadableImage


@dataclass(frozen=True)
class Pictures:
    """Twelve images of which each has its number in its first pixel, and i % 3 as its label."""

    labels: tuple[tuple[int, ...], ...] = tuple((i % 3,) for i in range(12))
    names: tuple[str, ...] = tuple(f"picture {i}" for i in range(12))
    has_masks = False
    unreadable: tuple[int, ...] = ()
    images: np.ndarray = field(
        default_factory=lambda: np.random.default_rng(1).integers(
            0, 256, (12, 16, 16, 3), dtype=np.uint8
        )
    )

    def __len__(self):
        return len(self.names)

    def digest(self):
        return ""

    def load(self, index, how):
        if index in self.unreadable:
            raise UnreadableImage("it is cut off")
        image = self.images[index].copy()
        image[0, 0] = index
        return Example(image, self.labels[index])


def without_labels(*numbers):
    """Some of them have no label."""
    known = Pictures().labels
    return Pictures(tuple(() if i in numbers else label for i, label in enumerate(known)))
