"""AttnLRP (Achtibat et al. 2024)."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.held_constant import HALVED, patch_relevance
from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee

_TITLE = "AttnLRP"


@jax.jit
def attn_lrp(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """Gradient × input with constant denominators of norms and gates of GELUs, and half of the
    gradient of the products that attention is made of.

    With the ε-rule in linear layers (ε → 0): the γ that the paper tunes for a network is left out.

    Raises:
      InputError: where the explainee is no vision transformer of ours.
    """
    return patch_relevance(explainee, HALVED, images, targets, _TITLE)


ATTN_LRP = Rival(
    "attn_lrp",
    _TITLE,
    "Achtibat, Hatefi, Dreyer, Jain, Wiegand, Lapuschkin & Samek, ICML 2024",
    "1 gradient",
    attn_lrp,
)
