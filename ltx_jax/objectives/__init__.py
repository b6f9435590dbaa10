"""Losses of masks: weighted sums of terms, which declare themselves in files of this room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key

from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives.term import Chance, Drawn, Term
from ltx_jax.rooms import declared

TERMS: dict[str, Term] = declared(__name__, Term)
# Weights by the name of a term: a pytree, whose values may change without compiling anew.
Weights = Mapping[str, float | Array]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "budgets"],
    meta_fields=["fills", "shift"],
)
@dataclass(frozen=True, eq=False)
class Goal:
    """An objective as a program takes it: a pytree, whose numbers may change without compiling
    anew.

    Attributes:
      weights: of its terms, by name, [] each.
      budgets: [2], least and greatest share of the pixels that a budget keeps, in (0,1).
      fills: of these one is drawn in each step to cover what a mask hides.
      shift: cells by which an image is moved in each step at most, its masks with it.
    """

    # A pytree's leaves may be their shapes.
    weights: Mapping[str, Any]
    budgets: Any
    fills: tuple[str, ...]
    shift: float = 0.0

    def chance(self, keys: Key[Array, " n"]) -> Chance:
        """What is drawn with a key of each image."""
        return Chance(keys, self.budgets, self.fills, self.shift)


def views_of(names: Iterable[str]) -> tuple[str, ...]:
    """What these terms see through the classifier, each once: so many forwards an image."""
    return tuple(dict.fromkeys(view for name in names for view in TERMS[name].views))


def losses(
    weights: Weights,
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W C"],
    token_masks: Float[Array | np.ndarray, "n g h"],
    targets: Int[Array | np.ndarray, " n"],
    raw: Float[Array, "n g h"] | None = None,
    chance: Chance | None = None,
) -> tuple[Float[Array, " n"], dict[str, Float[Array, " n"]]]:
    """The loss of each mask, and its terms unweighted; a batch's loss is the mean.

    The mask multiplies the image in [0,1] space, so that what it hides is black unless other fills
    are drawn.

    Args:
      weights: of the terms, by name.
      explainee: the classifier.
      images: in [0,1].
      token_masks: of them.
      targets: the classes to keep.
      raw: values before the activation, which terms with a budget need.
      chance: what is drawn, which they need as well.
    """
    drawn = Drawn(
        explainee,
        jnp.asarray(images),
        jnp.asarray(token_masks),
        jnp.asarray(targets, jnp.int32),
        views_of(weights),
        raw,
        chance,
    )
    terms = {name: TERMS[name].values(drawn) for name in weights}
    total = sum((weights[name] * terms[name] for name in weights), start=jnp.float32(0))
    return jnp.asarray(total), terms
