"""Integrated gradients (Sundararajan et al. 2017), for any explainee."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from ltx_jax.explainee import Explainee

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@partial(jax.jit, static_argnames="steps")
def integrated_gradients(
    explainee: Explainee,
    images: Float[Array, "n H W 3"],
    targets: Int[Array, " n"],
    steps: int = 32,
) -> Float[Array, "n H W"]:
    """Pixel masks in [0,1]: the path integral of the target logit's gradient from a black image.

    The path is cut into `steps` intervals whose midpoints are used; the attribution's absolute
    value is summed over the colour channels and scaled to [0,1] for each image.
    """

    def target_logits(images: Array) -> Array:
        return jnp.take_along_axis(explainee(images), targets[:, None], axis=-1).sum()

    def add(total: Array, share: Array) -> tuple[Array, None]:
        return total + jax.grad(target_logits)(images * share), None

    shares = (jnp.arange(steps) + 0.5) / steps
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), shares)
    relevance = jnp.abs(images * total / steps).sum(-1)
    low = relevance.min((1, 2), keepdims=True)
    high = relevance.max((1, 2), keepdims=True)
    return (relevance - low) / jnp.maximum(high - low, 1e-12)
