"""Attention rollout (Abnar & Zuidema 2020)."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import seen
from ltx_jax.attribution.rival import Rival
from ltx_jax.attribution.transformers import of_patches, reading, rolled_out, with_residual
from ltx_jax.models.explainee import Explainee

_TITLE = "attention rollout"
# The first block is left out, as in the comparisons of Chefer et al. 2021.
_FIRST = 1


@jax.jit
def attention_rollout(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """How much of each patch reaches what the classifier reads, if attention alone moved it.

    The product of the blocks' (A + 1), A the mean over heads and rows normalised to 1, from the
    second block on. It is the same for every class.

    Raises:
      InputError: where the explainee gives no attention maps.
    """
    found = seen(explainee, images, ["attention"], _TITLE)[1]
    heads = found["attention"].mean(2)
    mixings = with_residual(heads[min(_FIRST, len(heads) - 1) :])
    mixings = mixings / mixings.sum(-1, keepdims=True)
    return of_patches(rolled_out(reading(found), mixings), found)


ATTENTION_ROLLOUT = Rival(
    "attention_rollout",
    _TITLE,
    "Abnar & Zuidema, ACL 2020",
    "1 forward",
    attention_rollout,
)
