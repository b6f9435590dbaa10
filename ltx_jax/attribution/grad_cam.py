"""Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.last_map import weighted, with_slopes
from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee


@jax.jit
def grad_cam(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The positive part of `grad_cam_signed` (eq. 2), cells that speak for the class.

    Raises:
      InputError: where the explainee gives no intermediates, or no `features` among them.
    """
    return jax.nn.relu(grad_cam_signed(explainee, images, targets))


@jax.jit
def grad_cam_signed(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The last map's channels, each weighted with its mean gradient (eq. 1), added up.

    Before the ReLU, so that cells that speak against the class are ranked as well.

    Raises:
      InputError: as `grad_cam`.
    """
    maps, slopes = with_slopes(explainee, images, targets, "Grad-CAM")
    return weighted(maps, slopes.mean((1, 2), keepdims=True))


GRAD_CAM = Rival(
    "grad_cam",
    "Grad-CAM",
    "Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra, ICCV 2017",
    "1 gradient",
    grad_cam,
    grad_cam_signed,
)
