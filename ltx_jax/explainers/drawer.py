"""What draws a mask, as the engine that optimises it for each image knows it."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.explainers.leaves import Leaves
from ltx_jax.models.explainee import Explainee


class Beginning(NamedTuple):
    """Where the optimisation of one image starts.

    Attributes:
      leaves: that are trained, the image's own, without a slot axis.
      prefix: what comes of the image before any of them; it needs computing only once.
    """

    leaves: Leaves
    prefix: Array


@runtime_checkable
class Drawer(Protocol):
    """From leaves that are trained, and an image, to raw mask values on a grid.

    The engine holds thousands of images, each with leaves of its own. It asks a drawer where an
    image begins, and then draws, judges and changes the leaves. A drawer is a pytree whose static
    part is equal for two of the same kind, so that they share compiled programs.
    """

    @property
    def trained(self) -> Leaves:
        """What an optimizer changes, by path."""
        ...

    @property
    def activation(self) -> str:
        """From raw values to mask values; see `masks.tokens.activate`."""
        ...

    def begin(
        self,
        explainee: Explainee,
        image: Float[Array | np.ndarray, "H W C"],
        target: Int[Array, ""],
    ) -> Beginning:
        """Where one image, in [0,1], starts, for a class of the explainee."""
        ...

    def prefix(self, images: Float[Array | np.ndarray, "n H W C"]) -> Float[Array, "n ..."]:
        """What comes of images in [0,1] before any trained leaf; `draw` goes on from there."""
        ...

    def draw(self, leaves: Leaves, prefix: Float[Array, "n ..."]) -> Float[Array, "n c g h"]:
        """Raw values, before the activation, of images by their prefix.

        Args:
          leaves: with the paths of `trained`.
          prefix: of images.

        Returns:
          c values for each token of the grid; the first is the mask's, and LTX has only that.
        """
        ...

    def slot_axis(self, path: str) -> int:
        """Where a trained leaf, or what an optimizer keeps of it, has its slot axis when every
        image has its own copy."""
        ...

    def grid(self) -> tuple[int, int]:
        """Tokens of its masks along height and width."""
        ...

    def for_slots(self) -> Drawer:
        """The same, computed in the way that suits leaves of each image's own."""
        ...

    def without_trained(self) -> Drawer:
        """The same without its trained leaves, for whoever gives his own."""
        ...
