"""The last map of a classifier, which class activation maps are made of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee, Intermediates, listed
from ltx_jax.models.links import of_class

# The intermediates that `last_map` reads.
_READ = ("embedding", "blocks", "features", "pooled")


def last_map(found: Intermediates) -> Float[Array, "n g h c"]:
    """The last map that the logits are made of as a whole, or the gradient at it: `features`.

    No logit depends on those of a ViT with a class token: they are the patches that leave its last
    block, of which that token alone is read. The patches that enter that block stand for them.
    """
    features = found["features"]
    if "blocks" not in found or "pooled" in found:
        return features
    entering = [found["embedding"], *found["blocks"]][-2]
    n, g, h, c = features.shape
    return entering[:, -g * h :].reshape(n, g, h, c)


def shapes_with(
    explainee: Explainee, images: Float[Array, "n H W C"], needed: str, method: str
) -> dict[str, Any]:
    """Shapes of the intermediates, among which there must be one.

    Args:
      explainee, images: as every rival's.
      needed: name of the intermediate.
      method: what needs it, for the message.

    Raises:
      InputError: where the explainee gives no intermediates, or none of that name.
    """
    _, found = jax.eval_shape(lambda: explainee.intermediates(images, {}))
    if needed not in found:
        raise InputError(
            f"{explainee.name} has no intermediate {needed!r}, which {method} needs: it has "
            f"{listed(found)}"
        )
    return found


def seen(
    explainee: Explainee, images: Float[Array, "n H W C"], method: str
) -> tuple[Float[Array, "n classes"], Intermediates]:
    """Logits and intermediates with a last map among them.

    Raises:
      InputError: as `shapes_with`.
    """
    shapes_with(explainee, images, "features", method)
    return explainee.intermediates(images, {})


def with_slopes(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"], method: str
) -> tuple[Float[Array, "n g h c"], Float[Array, "n g h c"]]:
    """The last map of each image, and the gradient of the target's logit at it.

    Raises:
      InputError: as `shapes_with`.
    """
    shapes = shapes_with(explainee, images, "features", method)
    zeros = {name: jnp.zeros(shapes[name].shape) for name in _READ if name in shapes}

    def target_logits(added: Intermediates) -> tuple[Array, Intermediates]:
        logits, found = explainee.intermediates(images, added)
        return of_class(logits, targets).sum(), found

    slopes, found = jax.grad(target_logits, has_aux=True)(zeros)
    return last_map(found).astype(jnp.float32), last_map(slopes)


def as_added(found: Intermediates, change: Float[Array, "n g h c"]) -> Intermediates:
    """What is to be added to the intermediates, as they are found, for a change of the last map."""
    read = {name: jnp.zeros(found[name].shape) for name in _READ if name in found}
    _, put = jax.vjp(last_map, read)
    return put(change)[0]


def weighted(maps: Float[Array, "n g h c"], weights: Float[Array, "n c"]) -> Float[Array, "n g h"]:
    """The channels of a map, each times its weight, added up."""
    return (maps * weights[:, None, None]).sum(-1)
