"""Raw attention: what the class token attends to in the last block."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import seen
from ltx_jax.attribution.rival import Rival
from ltx_jax.attribution.transformers import of_patches, reading
from ltx_jax.models.explainee import Explainee

_TITLE = "raw attention"


@jax.jit
def raw_attention(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The last block's attention of the class token to each patch, the mean over heads.

    Where the classifier reads a mean of the patches, the mean over their rows. It is the same for
    every class.

    Raises:
      InputError: where the explainee gives no attention maps.
    """
    found = seen(explainee, images, ["attention"], _TITLE)[1]
    heads = found["attention"][-1].mean(1)
    row = jnp.einsum("t,nts->ns", reading(found), heads, precision="highest")
    return of_patches(row, found)


RAW_ATTENTION = Rival(
    "raw_attention",
    _TITLE,
    "the last block's map, as in Chefer, Gur & Wolf, CVPR 2021",
    "1 forward",
    raw_attention,
)
