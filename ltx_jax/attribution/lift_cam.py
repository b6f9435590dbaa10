"""LIFT-CAM (Jung & Oh 2021)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import seen
from ltx_jax.attribution.last_map import last_map, weighted
from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.links import of_class


@jax.jit
def lift_cam(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The positive part of `lift_cam_signed`.

    Raises:
      InputError: where the explainee gives no intermediates, no `features` among them, or has no
        backward rule `rescaled`.
    """
    return jax.nn.relu(lift_cam_signed(explainee, images, targets))


@jax.jit
def lift_cam_signed(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The last map's channels, each weighted with its DeepLIFT contribution to the target's logit.

    Contributions, by the rescale rule against a last map of zeros, are added up over positions:
    over channels they are the logit less that of no features at all. They stand for the channels'
    Shapley values, and are these where what follows the map is linear.

    Raises:
      InputError: as `lift_cam`.
    """
    paired = explainee.with_backward("rescaled")
    _, found = seen(paired, images, ["features"], "LIFT-CAM")
    maps = last_map(found)

    def target_logits(own: Array) -> Array:
        # Side by side, so that what comes before the last map is computed once for both.
        both = jax.vmap(lambda added: paired.intermediates(images, {"features": added})[0])
        return of_class(both(jnp.stack([own, -maps]))[0], targets).sum()

    multipliers = jax.grad(target_logits)(jnp.zeros_like(maps)).astype(jnp.float32)
    exact = maps.astype(jnp.float32)
    return weighted(exact, (multipliers * exact).sum((1, 2), keepdims=True))


LIFT_CAM = Rival(
    "lift_cam",
    "LIFT-CAM",
    "Jung & Oh, ICCV 2021",
    "1 gradient",
    lift_cam,
    lift_cam_signed,
)
