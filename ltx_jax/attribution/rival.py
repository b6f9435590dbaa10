"""What a rival method declares of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.masks.covering import covered
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.links import of_class

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
    """

    name: str
    title: str
    source: str
    budget: str
    maps: Attribute
    signed: Attribute | None = None


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
    count = len(variations)
    # A gradient keeps of each image what a forward forgets.
    most = masks_at_once(4 * len(targets))
    at_once = next(k for k in range(min(most, count), 0, -1) if count % k == 0)

    def add(total: Array, group: Array) -> tuple[Array, None]:
        images = jax.vmap(varied)(group)
        in_one = images.reshape(-1, *images.shape[2:])
        gradients = jax.grad(target_logits, argnums=1)(
            explainee, in_one, jnp.tile(targets, at_once)
        )
        return total + gradients.reshape(images.shape).sum(0), None

    groups = variations.reshape(-1, at_once)
    total, _ = jax.lax.scan(add, jnp.zeros_like(varied(variations[0])), groups)
    return total / count


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
