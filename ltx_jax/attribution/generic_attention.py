"""Generic attention explainability, GAE (Chefer, Gur & Wolf, ICCV 2021)."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import gradients
from ltx_jax.attribution.rival import Rival
from ltx_jax.attribution.transformers import of_patches, reading, rolled_out, with_residual
from ltx_jax.models.explainee import Explainee

_TITLE = "generic attention explainability"


@jax.jit
def generic_attention(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """R ← R + Ā·R from block to block (eq. 6), Ā the mean over heads of the positive part of
    attention times its gradient (eq. 5); the row that the classifier reads.

    Raises:
      InputError: where the explainee gives no attention maps.
    """
    found, slopes = gradients(explainee, images, targets, ["attention"], _TITLE)
    positive = jax.nn.relu(found["attention"] * slopes["attention"]).mean(2)
    return of_patches(rolled_out(reading(found), with_residual(positive)), found)


GENERIC_ATTENTION = Rival(
    "generic_attention",
    _TITLE,
    "Chefer, Gur & Wolf, ICCV 2021",
    "1 gradient",
    generic_attention,
)
