"""Whether a mask is greatest on the true object (Zhang et al., ECCV 2016)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.segmentation import counted_pixels


def pointing_game(case: Case) -> Float[Array, "n 1"]:
    """Percent of the most relevant pixels, where several are equal, that lie on the object; NaN
    where no truth is known. The paper's tolerance of 15 pixels is left out: our objects are known
    by their pixels, not by boxes."""
    assert case.truth is not None and case.known_truth is not None
    counted = counted_pixels(case)
    values = jnp.where(counted, case.order, -jnp.inf)
    greatest = (values == values.max((1, 2), keepdims=True)) & counted
    hits, all_of_them = (
        x.sum((1, 2)).astype(jnp.float32) for x in (greatest & case.truth, greatest)
    )
    share = 100.0 * hits / jnp.maximum(all_of_them, 1.0)
    return jnp.where(case.known_truth, share, jnp.nan)[:, None]


POINTING_GAME = Score(
    "pointing_game",
    "pointing game",
    "higher",
    0,
    100,
    "whether the most relevant pixel lies on the true object",
    "pointing game, Zhang, Bargal, Lin, Brandt, Shen & Sclaroff, ECCV 2016",
    pointing_game,
    usual=False,
    needs_truth=True,
)
