"""ResLRP, residual-aware relevance propagation (Berend et al. 2026)."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.held_constant import HALVED, constant, patch_relevance
from ltx_jax.attribution.rival import Rival
from ltx_jax.models.explainee import Explainee

_TITLE = "ResLRP"
_GAMMA = 1.0


@jax.jit
def res_lrp(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """AttnLRP whose residual sums y = Σz share relevance as the weighted summands w·z, where
    w = 1 + γ·[z·y > 0]: summands that cancel each other no longer blow it up.

    Raises:
      InputError: where the explainee is no vision transformer of ours.
    """
    by = replace(HALVED, add=weighted_sum)
    return patch_relevance(explainee, by, images, targets, _TITLE)


def weighted_sum(
    tokens: Float[Array, "n t d"], update: Float[Array, "n t d"]
) -> Float[Array, "n t d"]:
    """The sum, whose gradient × summand is w·z / Σ(w·z) of its gradient × sum."""
    total = tokens + update
    weights = [jnp.where(summand * total > 0, 1 + _GAMMA, 1) for summand in (tokens, update)]
    weighted = weights[0] * tokens + weights[1] * update
    share = total / jnp.where(weighted == 0, 1, weighted)  # both are 0 together
    linear = [
        summand * constant(weight * share)
        for summand, weight in zip((tokens, update), weights, strict=True)
    ]
    # The linear parts add up to the total but for rounding, which is put right.
    surrogate = linear[0] + linear[1]
    return surrogate + constant(total - surrogate)


RES_LRP = Rival(
    "res_lrp",
    _TITLE,
    "Berend, Achtibat, Schäffer, Binder, Samek, Lapuschkin & Dreyer 2026, arXiv 2609.17152",
    "1 gradient",
    res_lrp,
)
