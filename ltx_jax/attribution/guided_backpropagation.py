"""Guided backpropagation (Springenberg et al. 2015)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, target_logits
from ltx_jax.models.explainee import Explainee


@jax.jit
def guided_backpropagation(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n H W"]:
    """The gradient of the target's logit, of which each ReLU lets only what is positive back; the
    absolute value is summed over channels.

    Raises:
      InputError: where the explainee has no backward rule `guided`.
    """
    guided = explainee.with_backward("guided")
    return jnp.abs(jax.grad(target_logits, argnums=1)(guided, images, targets)).sum(-1)


GUIDED_BACKPROPAGATION = Rival(
    "guided_backpropagation",
    "guided backpropagation",
    "Springenberg, Dosovitskiy, Brox & Riedmiller, ICLR Workshop 2015",
    "1 gradient",
    guided_backpropagation,
)
