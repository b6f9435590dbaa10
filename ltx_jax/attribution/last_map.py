"""The last map of a classifier, which class activation maps are made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import gradients, shapes_with
from ltx_jax.models.explainee import Explainee, Intermediates

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


def with_slopes(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"], method: str
) -> tuple[Float[Array, "n g h c"], Float[Array, "n g h c"]]:
    """The last map of each image, and the gradient of the target's logit at it.

    Raises:
      InputError: as `shapes_with`.
    """
    shapes = shapes_with(explainee, images, ["features"], method)
    read = [name for name in _READ if name in shapes]
    found, slopes = gradients(explainee, images, targets, read, method)
    return last_map(found).astype(jnp.float32), last_map(slopes).astype(jnp.float32)


def as_added(found: Intermediates, change: Float[Array, "n g h c"]) -> Intermediates:
    """What is to be added to the intermediates, as they are found, for a change of the last map."""
    read = {name: jnp.zeros_like(found[name]) for name in _READ if name in found}
    seen, put = jax.vjp(last_map, read)
    return put(change.astype(seen.dtype))[0]


def weighted(
    maps: Float[Array, "*#n g h c"], weights: Float[Array, "*#n _ _ c"]
) -> Float[Array, "*n g h"]:
    """The channels of a map, each times its weight, added up.

    As a product with ones, for the reason that `layers.mean_over_positions` has.
    """
    return jnp.matmul(maps * weights, jnp.ones(maps.shape[-1], jnp.float32), precision="highest")
