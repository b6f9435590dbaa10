"""How well the order of pixels tells the true object from the rest."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.segmentation import counted_pixels


def pixel_auc(case: Case) -> Float[Array, "n 1"]:
    """Percent of the pairs of a pixel of the object and one outside in which the first ranks
    higher, ties counting half: the area under the ROC curve. NaN where no truth is known, or the
    object is everything."""
    assert case.truth is not None and case.known_truth is not None
    n, counted = len(case.order), counted_pixels(case)
    inside, outside = (x.reshape(n, -1) for x in (case.truth & counted, ~case.truth & counted))
    values = case.order.reshape(n, -1)
    others = jnp.sort(jnp.where(outside, values, jnp.inf))

    def below(side: str) -> Array:
        found = jax.vmap(lambda row, at: jnp.searchsorted(row, at, side=side))(others, values)
        return jnp.minimum(found, outside.sum(-1, keepdims=True)).astype(jnp.float32)

    won = 0.5 * (below("left") + below("right"))
    # As whole numbers they would not fit, from images of 305×305 on.
    pairs = inside.sum(-1).astype(jnp.float32) * outside.sum(-1).astype(jnp.float32)
    share = 100.0 * jnp.where(inside, won, 0.0).sum(-1) / jnp.maximum(pairs, 1.0)
    return jnp.where(case.known_truth & (pairs > 0), share, jnp.nan)[:, None]


PIXEL_AUC = Score(
    "pixel_auc",
    "pixel AUC",
    "higher",
    0,
    100,
    "share of pairs of a pixel of the true object and another that the mask ranks rightly",
    "area under the ROC curve, e.g. Zhang et al. 2018",
    pixel_auc,
    column=7,
    usual=False,
    needs_truth=True,
)
