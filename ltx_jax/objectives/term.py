"""What a term of an objective declares of itself, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from ltx_jax.errors import InputError
from ltx_jax.masks.covering import covered, filling
from ltx_jax.masks.moving import moved
from ltx_jax.masks.soft import soft_pixel_masks
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.explainee import Explainee

# What each use of an image's key adds to it.
_FILL, _BUDGET, _SHIFT = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Chance:
    """What is drawn anew in every step.

    Attributes:
      keys: of each image for this step; all that is drawn for it depends on nothing else.
      budgets: least and greatest share of the pixels that a budget keeps, in (0,1).
      fills: of these one is drawn for each image; see `masks.covering.filling`.
      shift: cells by which each image is moved at most, its masks with it.
    """

    keys: Key[Array, " n"]
    budgets: Float[Array, 2]
    fills: tuple[str, ...] = ("black",)
    shift: float = 0.0


@dataclass(frozen=True, eq=False)
class Drawn:
    """Masks that were drawn for images, under JAX's tracing; what several terms need of them is
    computed once.

    Attributes:
      explainee: the classifier.
      images: in [0,1].
      token_masks: after their activation.
      targets: the classes to keep.
      views: what the terms want to see through the classifier, keys of `VIEWS`; all of them go
        through it in one batch.
      raw: values before the activation, where a term needs them.
      chance: what is drawn, where anything is.
    """

    explainee: Explainee
    images: Float[Array, "n H W C"]
    token_masks: Float[Array, "n g h"]
    targets: Int[Array, " n"]
    views: tuple[str, ...] = ()
    raw: Float[Array, "n g h"] | None = None
    chance: Chance | None = None

    @cached_property
    def pixel_masks(self) -> Float[Array, "n H W"]:
        """The masks at the images' size."""
        return upsample(self.token_masks, self.images.shape[1:3])

    @cached_property
    def logits(self) -> dict[str, Float[Array, "n classes"]]:
        """Logits of each of the views."""
        masks = jnp.stack([self._moved(VIEWS[view](self)) for view in self.views])
        seen = covered(self._moved_images[None], masks, self._fill)
        logits = self.explainee(seen.reshape(-1, *self.images.shape[1:]))
        parts = logits.reshape(len(self.views), len(self.images), -1)
        return dict(zip(self.views, parts, strict=True))

    @cached_property
    def _fill(self) -> str | Array:
        """What covers each image's hidden part in this step."""
        if self.chance is None or self.chance.fills == ("black",):
            return "black"
        fills = [filling(self._moved_images, fill) for fill in self.chance.fills]
        drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(fills)))(self._keys(_FILL))
        chosen = jnp.zeros_like(self.images)
        for i, fill in enumerate(fills):
            if fill is not None:
                chosen = jnp.where((drawn == i)[:, None, None, None], fill, chosen)
        return chosen[None]

    @cached_property
    def budget_masks(self) -> Float[Array, "n H W"]:
        """Soft masks of the k most relevant pixels (`masks.soft`), k drawn for each image.

        Raises:
          InputError: where raw values, or keys to draw from, are not given.
        """
        if self.raw is None or self.chance is None:
            raise InputError(
                "a budget needs raw values and keys to draw from: leave its term out of this "
                "objective"
            )
        least, most = self.chance.budgets
        draw = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))
        kept = least + (most - least) * draw(self._keys(_BUDGET))
        return soft_pixel_masks(self.raw, kept, self.images.shape[1:3])

    @cached_property
    def _moved_images(self) -> Float[Array, "n H W C"]:
        return self._moved(self.images)

    def _moved(self, values: Float[Array, "n H W ..."]) -> Float[Array, "n H W ..."]:
        """Images or masks, each by what is drawn for its image in this step."""
        if self.chance is None or not self.chance.shift:
            return values
        (height, width), (g, h) = self.images.shape[1:3], self.token_masks.shape[1:]
        most = round(self.chance.shift * height / g), round(self.chance.shift * width / h)
        limit = jnp.array(most, jnp.int32)
        draw = jax.vmap(lambda key: jax.random.randint(key, (2,), -limit, limit + 1, jnp.int32))
        return moved(values, draw(self._keys(_SHIFT)), most)

    def _keys(self, use: int) -> Key[Array, " n"]:
        assert self.chance is not None
        return jax.vmap(lambda key: jax.random.fold_in(key, use))(self.chance.keys)


# What a term may ask to see through the classifier: the pixel masks of each.
VIEWS: dict[str, Callable[[Drawn], Array]] = {
    "kept": lambda drawn: drawn.pixel_masks,
    "hidden": lambda drawn: 1 - drawn.pixel_masks,
    "budget_kept": lambda drawn: drawn.budget_masks,
    "budget_hidden": lambda drawn: 1 - drawn.budget_masks,
}


@dataclass(frozen=True)
class Term:
    """One term of a loss.

    Attributes:
      name: in settings and traces.
      meaning: one line for people.
      source: the paper, or the original's function.
      values: of each mask, [n].
      views: what it wants to see through the classifier, keys of `VIEWS`.
    """

    name: str
    meaning: str
    source: str
    values: Callable[[Drawn], Array]
    views: tuple[str, ...] = ()
