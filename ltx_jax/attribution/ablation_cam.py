"""Ablation-CAM (Desai & Ramaswamy 2020)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import seen
from ltx_jax.attribution.last_map import as_added, last_map, weighted
from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee, in_chunks
from ltx_jax.models.links import of_class

# Channels at a time: what is before the last map is computed once for so many of them.
_CHUNK = 128


@jax.jit
def ablation_cam(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, "n ..."]
) -> Float[Array, "n ... g h"]:
    """The positive part of `ablation_cam_signed` (eq. 5).

    Raises:
      InputError: where the explainee gives no intermediates, or no `features` among them.
    """
    return jax.nn.relu(ablation_cam_signed(explainee, images, targets))


@jax.jit
def ablation_cam_signed(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, "n ..."]
) -> Float[Array, "n ... g h"]:
    """The last map's channels, each weighted with what the target's logit loses where it is zero.

    The paper divides the loss by the logit (eq. 3). That changes a map's range alone, or turns it
    upside down where the logit is negative, and is left out.

    Raises:
      InputError: as `ablation_cam`.
    """

    def of_one(one: tuple[Array, Array]) -> Array:
        image, classes = one[0][None], one[1].reshape(-1)
        logits, found = seen(explainee, image, ["features"], "Ablation-CAM")
        maps = last_map(found)

        def without(channel: Array) -> Array:
            gone = jnp.where(jnp.arange(maps.shape[-1]) == channel, -maps, 0)
            logits, _ = explainee.intermediates(image, as_added(found, gone))
            return of_class(logits, classes)

        left = in_chunks(jax.vmap(without), jnp.arange(maps.shape[-1]), _CHUNK)
        losses = (of_class(logits, classes)[None] - left).T
        each = weighted(maps.astype(jnp.float32), losses[:, None, None])
        return each.reshape(*one[1].shape, *each.shape[1:])

    return jax.lax.map(of_one, (images, targets))


ABLATION_CAM = Rival(
    "ablation_cam",
    "Ablation-CAM",
    "Desai & Ramaswamy, WACV 2020",
    "the last layers once a channel of the last map",
    ablation_cam,
    ablation_cam_signed,
    of_classes=True,
)
