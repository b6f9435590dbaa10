"""Sources of scenes that are drawn on the spot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ltx_jax.data.examples import Example
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of


class Scene(NamedTuple):
    """One picture, or a batch of them with a leading axis.

    Attributes:
      image: uint8.
      labels: 1 for each class that is there.
      masks: the pixels where an object of a class is seen. Objects hide one another, so no pixel
        is in two masks; a class that is not there has none.
    """

    image: UInt8[np.ndarray, "*n size size 3"]
    labels: Float[np.ndarray, "*n classes"]
    masks: Bool[np.ndarray, "*n classes size size"]


@dataclass(frozen=True)
class DrawnScenes(ABC):
    """Scenes with all that is known of them (a `data.examples.Source`).

    Attributes:
      seed: of the scenes.
      indices: which of them.
      objects: fewest and most objects.
      kind: what their names begin with.
      classes: what the labels are called.
    """

    seed: int
    indices: Sequence[int]
    objects: tuple[int, int]
    kind: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    has_masks = True

    @property
    @abstractmethod
    def parts(self) -> Sequence[Container[int]]:
        """Parts of a scene that `without` leaves out one after the other, as many as any has."""

    @abstractmethod
    def labels_of(self, index: int) -> tuple[int, ...]:
        """Of a scene by its number, without drawing it."""

    @abstractmethod
    def draw(self, index: int, size: int, without: Container[int] = ()) -> Scene:
        """A scene by its number, `size` pixels along each side, without some of its parts."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def label_names(self) -> Mapping[int, str]:
        """What the labels are called."""
        return dict(enumerate(self.classes))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """`scene-0007`."""
        return tuple(f"{self.kind}-{index:04d}" for index in self.indices)

    @cached_property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """Of each scene."""
        return tuple(map(self.labels_of, self.indices))

    def without(self, index: int, how: Preprocessing) -> UInt8[np.ndarray, "p H W C"]:
        """The scene without each of its `parts`; as it is for those that it has not."""
        which = self.indices[index], how.size[0]
        return np.stack([self.draw(*which, part).image for part in self.parts])

    def load(self, index: int, how: Preprocessing) -> Example:
        """The scene, drawn at a network's size, which leaves nothing to resize or crop.

        Raises:
          InputError: where that is not square.
        """
        height, width = how.size
        if height != width:
            raise InputError(f"scenes are square: a network for {height}×{width} cannot see them")
        labels = self.labels_of(self.indices[index])
        drawn = self.draw(self.indices[index], height)
        return Example(drawn.image, labels, drawn.masks[list(labels)])

    def digest(self) -> str:
        """Of what they are drawn from."""
        return digest_of([repr((self.seed, tuple(self.indices), self.objects)).encode()])
