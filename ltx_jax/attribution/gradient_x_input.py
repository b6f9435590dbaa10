"""Gradient × input (Shrikumar et al. 2016)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, target_logits
from ltx_jax.models.explainee import Explainee


@jax.jit
def gradient_x_input(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n H W"]:
    """The absolute value of image times gradient of the target's logit, summed over channels."""
    gradient = jax.grad(target_logits, argnums=1)(explainee, images, targets)
    return jnp.abs(images * gradient).sum(-1)


GRADIENT_X_INPUT = Rival(
    "gradient_x_input",
    "gradient × input",
    "Shrikumar, Greenside, Shcherbina & Kundaje 2016, arXiv 1605.01713",
    "1 gradient",
    gradient_x_input,
)
