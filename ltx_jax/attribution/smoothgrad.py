"""SmoothGrad (Smilkov et al. 2017)."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import Rival, mean_gradient
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

    def noisy(key: Array) -> Array:
        drawn = jax.random.normal(key, (1, *images.shape[1:]), jnp.float32)
        return images + deviation * drawn

    keys = jax.random.split(jax.random.key(0), samples)
    return jnp.abs(mean_gradient(explainee, noisy, keys, targets)).sum(-1)


SMOOTHGRAD = Rival(
    "smoothgrad",
    "SmoothGrad",
    "Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, arXiv 1706.03825",
    f"{SAMPLES} gradients, noise {NOISE:g} of the range",
    smoothgrad,
    in_parts=True,
)
