"""Images to train on and images held out, of two sources, as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ltx_jax.data.examples import Example, Source, label_names
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of

# Before the name of an image held out that one to train on has as well.
HELD_OUT = "held out: "


@dataclass(frozen=True)
class Joined:
    """Two sources as one (a `data.examples.Source`).

    Where both say what their classes are called, those of the second are numbered as the first's.
    Images of two folders or arrays may be named alike; the second's are told apart then.

    Attributes:
      first: to train on.
      second: held out.
    """

    first: Source
    second: Source

    def __post_init__(self) -> None:
        """See that they are two sets, and that classes are the same.

        Raises:
          InputError: where they are not.
        """
        if alike := len(set(self.first.names) & set(self.second.names)):
            if self.first.digest() == self.second.digest():
                raise InputError(
                    f"the images to train on are those held out, {self.first.names[0]} among them: "
                    "give two sets that are apart"
                )
            logging.warning(
                "%d images held out are named as some to train on, and are taken for others", alike
            )
        one, other = label_names(self.first), label_names(self.second)
        strange = [k for k, name in other.items() if name not in one.values() and k in one]
        if strange:
            raise InputError(
                f"the images held out have a class {other[strange[0]]!r} that those to train on "
                f"have not, whose class {strange[0]} is {one[strange[0]]!r}: give two sets of the "
                "same classes"
            )

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of both, all different."""
        there = set(self.first.names)
        others = (HELD_OUT + name if name in there else name for name in self.second.names)
        return (*self.first.names, *others)

    @cached_property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """Of both."""
        return (*self.first.labels, *map(self._renumbered, self.second.labels))

    @cached_property
    def label_names(self) -> Mapping[int, str]:
        """Of both."""
        others = label_names(self.second).items()
        return {self._numbers.get(k, k): name for k, name in others} | dict(label_names(self.first))

    @property
    def has_masks(self) -> bool:
        """Whether one of the two knows any."""
        return self.first.has_masks or self.second.has_masks

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size; raises `UnreadableImage`."""
        beyond = index - len(self.first)
        if beyond < 0:
            return self.first.load(index, how)
        example = self.second.load(beyond, how)
        return example._replace(labels=self._renumbered(example.labels))

    def digest(self) -> str:
        """Of both."""
        return digest_of([self.first.digest().encode(), self.second.digest().encode()])

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """The first's number of each class of the second that has another one there."""
        there = {name: k for k, name in label_names(self.first).items()}
        every = {k: there.get(name, k) for k, name in label_names(self.second).items()}
        return {k: number for k, number in every.items() if k != number}

    def _renumbered(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._numbers.get(label, label) for label in labels)
