"""Sensitivity-n: whether a mask adds up as the classifier does (Ancona et al., ICLR 2018)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.grid import cells_of, logits_under, means_of_cells
from ltx_jax.metrics.score import Score
from ltx_jax.models.links import of_class

# Cells a side, how many of them are gone, and how often so many are drawn.
_SIDE, _GONE, _DRAWS = 8, (4, 16, 32), 32


def sensitivity_n(case: Case) -> Float[Array, "n k"]:
    """Pearson correlation, over random sets of n of 8×8 cells, between the drop of the class's
    logit as they are black and the relevance in them (`means_of_cells`); the mean over n of 4, 16
    and 32. NaN where one side is constant. The sets are the same for every image."""
    _, height, width = case.relevance.shape
    gone = _sets()
    cells = cells_of(height, width, _SIDE)
    drops = case.logits[:, None] - logits_under(case, ~gone.reshape(-1, _SIDE**2)[:, cells])
    drops = of_class(drops[:, None], case.classes[..., None])
    drops = drops.reshape(*drops.shape[:2], len(_GONE), _DRAWS)
    inside = means_of_cells(case.relevance, _SIDE)
    sums = jnp.where(gone[None], inside[:, None, None], 0).sum(-1)
    return _pearson(drops, sums[:, None]).mean(-1)


def _sets() -> Bool[Array, "g d c"]:
    """Which cells are gone: for each number, so many sets."""
    drawn = jax.random.uniform(jax.random.key(0), (len(_GONE), _DRAWS, _SIDE**2))
    rank = jnp.argsort(jnp.argsort(drawn, axis=-1), axis=-1)
    return rank < jnp.array(_GONE)[:, None, None]


def _pearson(a: Float[Array, "*#n d"], b: Float[Array, "*#n d"]) -> Float[Array, "*n"]:
    a, b = (_centred(x) for x in (a, b))
    spread = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.where(spread > 0, (a * b).sum(-1) / spread, jnp.nan)


def _centred(x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Values less their mean; of equal ones exactly 0, which a rounded mean does not leave."""
    x = x - x[..., :1]
    return x - x.mean(-1, keepdims=True)


SENSITIVITY_N = Score(
    "sensitivity_n",
    "sensitivity-n",
    "higher",
    -1,
    1,
    "correlation, over random sets of 8×8 cells, of the relevance in them with what the class's "
    "logit loses without them",
    "sensitivity-n, Ancona, Ceolini, Öztireli & Gross, ICLR 2018",
    sensitivity_n,
    usual=False,
)
