"""Integrated gradients (Sundararajan, Taly & Yan 2017)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, target_logits
from ltx_jax.models.explainee import Explainee

STEPS = 50


@partial(jax.jit, static_argnames="steps")
def integrated_gradients(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    steps: int = STEPS,
) -> Float[Array, "n H W"]:
    """The path integral of the target logit's gradient from a black image.

    The path is cut into `steps` intervals whose midpoints are used; the attribution's absolute
    value is summed over the colour channels.
    """

    def add(total: Array, share: Array) -> tuple[Array, None]:
        gradient = jax.grad(target_logits, argnums=1)(explainee, images * share, targets)
        return total + gradient, None

    shares = (jnp.arange(steps, dtype=jnp.float32) + 0.5) / steps
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), shares)
    return jnp.abs(images * total / steps).sum(-1)


INTEGRATED_GRADIENTS = Rival(
    "integrated_gradients",
    "integrated gradients",
    "Sundararajan, Taly & Yan, ICML 2017",
    f"{STEPS} gradients",
    integrated_gradients,
)
