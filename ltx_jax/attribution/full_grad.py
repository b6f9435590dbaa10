"""FullGrad (Srinivas & Fleuret 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import gradients, shapes_with
from ltx_jax.attribution.rival import Rival
from ltx_jax.errors import InputError
from ltx_jax.masks.spanning import spanning
from ltx_jax.models.explainee import Explainee, Intermediates
from ltx_jax.models.layers import is_bias


@jax.jit
def full_grad(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n H W"]:
    """Input times its gradient and each layer's biases times theirs (eq. 7): the absolute value of
    each channel scaled to span [0,1] and enlarged to the image, added up.

    The input is what the network reads, the normalised image. The bias of the classifier, which
    has no place in the image, is left out.

    Raises:
      InputError: where the explainee gives no intermediates, or no `input` and biases among them.
    """
    shares: dict[tuple[int, ...], Array] = {}
    for share in full_gradients(explainee, images, targets).values():
        channels = jax.vmap(spanning, in_axes=-1, out_axes=-1)(jnp.abs(share))
        grid = share.shape[1:3]
        shares[grid] = shares.get(grid, jnp.float32(0)) + channels.sum(-1)
    size = images.shape[:3]
    return sum((jax.image.resize(x, size, "linear") for x in shares.values()), jnp.zeros(size))


def full_gradients(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Intermediates:
    """What the input and each bias contribute to the target's logit (eq. 2), by name [n,g,h,c].

    In a network of ReLUs, they and the classifier's bias add up to the logit.

    Raises:
      InputError: as `full_grad`.
    """
    shapes = shapes_with(explainee, images, ["input"], "FullGrad")
    biases = [name for name in shapes if is_bias(name)]
    if not biases:
        raise InputError(
            f"{explainee.name} does not tell what its biases add, which FullGrad needs: choose "
            "another method"
        )
    found, slopes = gradients(explainee, images, targets, ["input", *biases], "FullGrad")
    both = ((name, found[name], slope) for name, slope in slopes.items())
    return {name: x.astype(jnp.float32) * slope.astype(jnp.float32) for name, x, slope in both}


FULL_GRAD = Rival(
    "full_grad",
    "FullGrad",
    "Srinivas & Fleuret, NeurIPS 2019",
    "1 gradient",
    full_grad,
)
