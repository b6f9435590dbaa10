"""Grad-CAM on the attention of the last block, as Chefer et al. 2021 compare with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import gradients
from ltx_jax.attribution.rival import Rival
from ltx_jax.attribution.transformers import of_patches, reading
from ltx_jax.models.explainee import Explainee

_TITLE = "Grad-CAM on attention"


@jax.jit
def attention_grad_cam(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The positive part of `attention_grad_cam_signed`.

    Raises:
      InputError: where the explainee gives no attention maps.
    """
    return jax.nn.relu(attention_grad_cam_signed(explainee, images, targets))


@jax.jit
def attention_grad_cam_signed(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The last block's attention of the class token to the patches, each head weighted with its
    gradient's mean over them; the mean over heads.

    Raises:
      InputError: where the explainee gives no attention maps.
    """
    found, slopes = gradients(explainee, images, targets, ["attention"], _TITLE)
    row, slope = (
        jnp.einsum("t,nhts->hns", reading(found), maps["attention"][-1], precision="highest")
        for maps in (found, slopes)
    )
    on_grid = jax.vmap(lambda tokens: of_patches(tokens, found))
    weights = on_grid(slope).mean((2, 3), keepdims=True)
    return (weights * on_grid(row)).mean(0)


ATTENTION_GRAD_CAM = Rival(
    "attention_grad_cam",
    _TITLE,
    "Selvaraju et al., ICCV 2017, as in Chefer, Gur & Wolf, CVPR 2021",
    "1 gradient",
    attention_grad_cam,
    attention_grad_cam_signed,
)
