"""SmoothGrad (Smilkov et al. 2017)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, target_logits
from ltx_jax.models.explainee import Explainee

SAMPLES, NOISE = 50, 0.15


@partial(jax.jit, static_argnames=("samples", "noise"))
def smoothgrad(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    samples: int = SAMPLES,
    noise: float = NOISE,
) -> Float[Array, "n H W"]:
    """The mean gradient of the target's logit over noisy copies of the image; the absolute value is
    summed over channels.

    Args:
      explainee, images, targets: as every rival's.
      samples: noisy copies.
      noise: standard deviation of the noise, as a share of the image's range of values. It is the
        same for every image, so that a map does not depend on the images beside it.
    """
    low, high = (ends((1, 2, 3), keepdims=True) for ends in (images.min, images.max))
    deviation = noise * (high - low)

    def add(total: Array, key: Array) -> tuple[Array, None]:
        drawn = jax.random.normal(key, (1, *images.shape[1:]), jnp.float32)
        gradient = jax.grad(target_logits, argnums=1)(
            explainee, images + deviation * drawn, targets
        )
        return total + gradient, None

    keys = jax.random.split(jax.random.key(0), samples)
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), keys)
    return jnp.abs(total / samples).sum(-1)


SMOOTHGRAD = Rival(
    "smoothgrad",
    "SmoothGrad",
    "Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, arXiv 1706.03825",
    f"{SAMPLES} gradients, noise {NOISE:g} of the range",
    smoothgrad,
)
