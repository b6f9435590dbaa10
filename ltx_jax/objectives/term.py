"""What a term of an objective declares of itself, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jax import Array
from jaxtyping import Float, Int

from ltx_jax.masks.covering import covered
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.explainee import Explainee


@dataclass(frozen=True, eq=False)
class Drawn:
    """Masks that were drawn for images, under JAX's tracing; what several terms need of them is
    computed once.

    Attributes:
      explainee: the classifier.
      images: in [0,1].
      token_masks: after their activation.
      targets: the classes to keep.
    """

    explainee: Explainee
    images: Float[Array, "n H W C"]
    token_masks: Float[Array, "n g h"]
    targets: Int[Array, " n"]

    @cached_property
    def pixel_masks(self) -> Float[Array, "n H W"]:
        """The masks at the images' size."""
        return upsample(self.token_masks, self.images.shape[1:3])

    @cached_property
    def kept_logits(self) -> Float[Array, "n classes"]:
        """Logits of what the mask lets through."""
        return self.explainee(covered(self.images, self.pixel_masks))

    @cached_property
    def hidden_logits(self) -> Float[Array, "n classes"]:
        """Logits of the rest."""
        return self.explainee(covered(self.images, 1 - self.pixel_masks))


@dataclass(frozen=True)
class Term:
    """One term of a loss.

    Attributes:
      name: in settings and traces.
      meaning: one line for people.
      source: the paper, or the original's function.
      values: of each mask, [n].
    """

    name: str
    meaning: str
    source: str
    values: Callable[[Drawn], Array]
