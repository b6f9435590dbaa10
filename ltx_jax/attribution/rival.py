"""What a rival method declares of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from ltx_jax.masks.covering import covered
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.links import of_class

# The mesh axis of devices that share the work on one image.
PARTS = "image_parts"

Attribute = Callable[[Explainee, Array, Array], Array]
# Images in one forward of what looks at an image through many masks: few stay in a CPU's cache.
_AT_ONCE = {"cpu": 9}
_AT_ONCE_ELSEWHERE = 144


@dataclass(frozen=True)
class Rival:
    """Another way to explain, for comparison.

    Attributes:
      name: in settings, files and summaries.
      title: for people.
      source: the paper.
      budget: what it costs an image, in words.
      maps: (explainee, images [n,H,W,C] in [0,1], targets [n]) to the relevance of each pixel
        [n,H,W], or of cells [n,g,h], in any range; jitted.
      signed: the same with what speaks against the class below zero, where `maps` cut that off.
      in_parts: whether devices can share the work on one image, by `sum_over` or `each_of`.
      of_classes: whether `maps` take several classes of each image as well, [n,k], to a map of each
        [n,k,...], for little more than the price of one.
    """

    name: str
    title: str
    source: str
    budget: str
    maps: Attribute
    signed: Attribute | None = None
    in_parts: bool = False
    of_classes: bool = False


def target_logits(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, ""]:
    """The sum of the targets' logits: its gradient is each image's own."""
    return of_class(explainee(images), targets).sum()


def mean_gradient(
    explainee: Explainee,
    varied: Callable[[Array], Float[Array, "n H W C"]],
    variations: Array,
    targets: Int[Array, " n"],
) -> Float[Array, "n H W C"]:
    """The mean, over variations of the images, of the gradient of each target's logit.

    Args:
      explainee: the network.
      varied: one of the variations to the images by it.
      variations: along the first axis.
      targets: of the images.
    """

    def gradients(group: Array, counts: Array) -> Array:
        images = jax.vmap(varied)(group)

        def logits(images: Array) -> Array:
            seen = explainee(images.reshape(-1, *images.shape[2:]))
            found = of_class(seen, jnp.tile(targets, len(group)))
            return jnp.where(counts[:, None], found.reshape(len(group), -1), 0).sum()

        return jax.grad(logits)(images).sum(0)

    # A gradient keeps of each image what a forward forgets.
    total = sum_over(variations, gradients, masks_at_once(4 * len(targets)))
    return total / len(variations)


def sum_over(
    variations: Array, values: Callable[[Array, Bool[Array, " k"]], Array], at_once: int
) -> Array:
    """The sum over variations of what comes of them, some at a time; where devices share an image
    (`PARTS`) each takes a part.

    Args:
      variations: along the first axis.
      values: from k variations, and which of them count, to the sum over those.
      at_once: variations at most.
    """
    count, parts = len(variations), jax.sharding.get_abstract_mesh().shape.get(PARTS, 1)
    groups = -(-count // (at_once * parts))
    at_once = -(-count // (groups * parts))
    numbers = jnp.arange(parts * groups * at_once, dtype=jnp.int32)
    numbers = numbers.reshape(parts, groups, at_once)

    def of_group(numbers: Array) -> Array:
        return values(variations[jnp.minimum(numbers, count - 1)], numbers < count)

    def add(total: Array, numbers: Array) -> tuple[Array, None]:
        return total + of_group(numbers), None

    form = jax.eval_shape(of_group, numbers[0, 0])
    mine = numbers[jax.lax.axis_index(PARTS) if parts > 1 else 0]
    total, _ = jax.lax.scan(add, jnp.zeros(form.shape, form.dtype), mine)
    return jax.lax.psum(total, PARTS) if parts > 1 else total


def each_of(count: int, values: Callable[[Int[Array, " k"]], Array], at_once: int) -> Array:
    """What comes of each of so many variations [count,...], with the work shared as by `sum_over`.

    Args:
      count: of variations.
      values: from the numbers of k variations to what comes of each, [k,...].
      at_once: variations at most.
    """

    def in_place(numbers: Array, counts: Array) -> Array:
        found = values(numbers)
        kept = jnp.where(counts.reshape(-1, *[1] * (found.ndim - 1)), found, 0)
        return jnp.zeros((count, *found.shape[1:]), found.dtype).at[numbers].add(kept)

    return sum_over(jnp.arange(count, dtype=jnp.int32), in_place, at_once)


def masks_at_once(images: int) -> int:
    """How many masks of each of so many images go through the explainee in one forward."""
    return max(_AT_ONCE.get(jax.default_backend(), _AT_ONCE_ELSEWHERE) // images, 1)


def logits_through(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    masks: Float[Array, "m #n H W"],  # noqa: UP037  (the sign is jaxtyping's, no comment)
) -> Float[Array, "m n classes"]:
    """Each image through each of the masks; what they hide is black."""
    seen = covered(images[None], masks)
    logits = explainee(seen.reshape(-1, *images.shape[1:]))
    return logits.reshape(len(masks), len(images), -1)
