"""Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival
from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee, Intermediates
from ltx_jax.models.links import of_class

# The intermediates that `_last_map` reads.
_READ = ("embedding", "blocks", "features", "pooled")


@jax.jit
def grad_cam(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The positive part of `grad_cam_signed` (eq. 2), cells that speak for the class.

    Raises:
      InputError: where the explainee gives no intermediates.
    """
    return jax.nn.relu(grad_cam_signed(explainee, images, targets))


@jax.jit
def grad_cam_signed(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The last map's channels, each weighted with its mean gradient (eq. 1), added up.

    Before the ReLU, so that cells that speak against the class are ranked as well.

    Raises:
      InputError: where the explainee gives no intermediates, or none of that name.
    """
    _, found = jax.eval_shape(lambda: explainee.intermediates(images, {}))
    if "features" not in found:
        raise InputError(
            f"{explainee.name} has no intermediate 'features', which Grad-CAM needs: it has "
            f"{', '.join(found) or 'none'}"
        )
    zeros = {name: jnp.zeros(found[name].shape) for name in _READ if name in found}

    def target_logits(added: Intermediates) -> tuple[Array, Intermediates]:
        logits, found = explainee.intermediates(images, added)
        return of_class(logits, targets).sum(), found

    slopes, found = jax.grad(target_logits, has_aux=True)(zeros)
    weights = _last_map(slopes).mean((1, 2), keepdims=True)
    return (weights * _last_map(found).astype(jnp.float32)).sum(-1)


def _last_map(found: Intermediates) -> Float[Array, "n g h c"]:
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


GRAD_CAM = Rival(
    "grad_cam",
    "Grad-CAM",
    "Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra, ICCV 2017",
    "1 gradient",
    grad_cam,
    grad_cam_signed,
)
