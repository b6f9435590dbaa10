"""Images of two sources, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ltx_jax.data.examples import Example, Source, label_names
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of


@dataclass(frozen=True)
class Joined:
    """Two sources as one (a `data.examples.Source`).

    Attributes:
      first, second: no name is in both.
    """

    first: Source
    second: Source

    def __post_init__(self) -> None:
        """See that names are all different."""
        if both := set(self.first.names) & set(self.second.names):
            raise InputError(
                f"{min(both)} is among the images to train on and among those held out: give two "
                "sets that are apart"
            )
        one, other = label_names(self.first), label_names(self.second)
        if one and other and one != other:
            raise InputError(
                f"the images to train on have {len(one)} classes and those held out {len(other)} "
                "others: give two sets whose classes are called the same"
            )

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of both."""
        return (*self.first.names, *self.second.names)

    @cached_property
    def labels(self) -> tuple[tuple[int, ...], ...]:
        """Of both."""
        return (*self.first.labels, *self.second.labels)

    @property
    def label_names(self) -> Mapping[int, str]:
        """Of either."""
        return label_names(self.first) or label_names(self.second)

    @property
    def has_masks(self) -> bool:
        """Whether one of the two knows any."""
        return self.first.has_masks or self.second.has_masks

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size; raises `UnreadableImage`."""
        beyond = index - len(self.first)
        return self.first.load(index, how) if beyond < 0 else self.second.load(beyond, how)

    def digest(self) -> str:
        """Of both."""
        return digest_of([self.first.digest().encode(), self.second.digest().encode()])
