"""Layer-CAM (Jiang et al. 2021), at the last map."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.last_map import weighted, with_slopes
from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee


@jax.jit
def layer_cam(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """Each value of the last map times its gradient where that is positive (eq. 6), added up over
    channels; the positive part.

    Raises:
      InputError: where the explainee gives no intermediates, or no `features` among them.
    """
    maps, slopes = with_slopes(explainee, images, targets, "Layer-CAM")
    return jax.nn.relu(weighted(maps, jax.nn.relu(slopes)))


LAYER_CAM = Rival(
    "layer_cam",
    "Layer-CAM",
    "Jiang, Zhang, Hou, Cheng & Wei, IEEE Transactions on Image Processing 2021",
    "1 gradient",
    layer_cam,
)
