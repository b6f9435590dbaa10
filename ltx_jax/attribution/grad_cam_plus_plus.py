"""Grad-CAM++ (Chattopadhay et al. 2018)."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.last_map import weighted, with_slopes
from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee

# Of the denominator. Squared gradients of a logit at a large map are no larger, so that it is part
# of what the method is: that of the implementation which published numbers are mostly made with.
_EPSILON = 1e-6


@jax.jit
def grad_cam_plus_plus(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The positive part of the channels of the last map, added up with these weights.

    With gradients g at a channel A, its weight is the sum over positions of α·max(g, 0), where
    α = g² / (2g² + g³·ΣA) (eq. 19, with a small constant in the denominator).

    Raises:
      InputError: where the explainee gives no intermediates, or no `features` among them.
    """
    maps, slopes = with_slopes(explainee, images, targets, "Grad-CAM++")
    squares, mass = slopes**2, maps.sum((1, 2), keepdims=True)
    alphas = squares / (2 * squares + mass * slopes**3 + _EPSILON)
    weights = (alphas * jax.nn.relu(slopes)).sum((1, 2), keepdims=True)
    return jax.nn.relu(weighted(maps, weights))


GRAD_CAM_PLUS_PLUS = Rival(
    "grad_cam_plus_plus",
    "Grad-CAM++",
    "Chattopadhay, Sarkar, Howlader & Balasubramanian, WACV 2018",
    "1 gradient",
    grad_cam_plus_plus,
)
