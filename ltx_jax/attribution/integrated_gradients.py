"""Integrated gradients (Sundararajan, Taly & Yan 2017)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, mean_gradient
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
    shares = (jnp.arange(steps, dtype=jnp.float32) + 0.5) / steps
    slope = mean_gradient(explainee, lambda share: images * share, shares, targets)
    return jnp.abs(images * slope).sum(-1)


INTEGRATED_GRADIENTS = Rival(
    "integrated_gradients",
    "integrated gradients",
    "Sundararajan, Taly & Yan, ICML 2017",
    f"{STEPS} gradients",
    integrated_gradients,
    in_parts=True,
)
