"""Symmetric relevance gain: least relevant first minus most relevant first.

Of agreement, of the class's probability and of its logit; of pixels, and of whole cells.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.masks.covering import Fill
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.grid import cells_of
from ltx_jax.metrics.perturbation import FRACTIONS, Removal, curves_of_removal
from ltx_jax.metrics.score import Score

# Cells a side, of the score whose cells go as a whole.
_SIDE = 8


def agreement_gain(case: Case) -> Float[Array, "n k"]:
    """NEG − POS."""
    return case.least_relevant_first.agreement - case.most_relevant_first.agreement


def agreement_gain_under(case: Case, fill: Fill) -> Float[Array, "n k"]:
    """NEG − POS where another fill than black stands for the pixels that are gone."""
    return case.areas(False, fill).agreement - case.areas(True, fill).agreement


def probability_gain(case: Case) -> Float[Array, "n k"]:
    """INS − DEL."""
    return case.least_relevant_first.probability - case.most_relevant_first.probability


def logit_gain(case: Case) -> Float[Array, "n k"]:
    """How much higher the class's logit is, on average over the curve, as the least relevant pixels
    go first than as the most relevant do."""
    gain = case.least_relevant_first_curves.logit - case.most_relevant_first_curves.logit
    return jnp.trapezoid(gain, axis=-1) / len(FRACTIONS)


def gain_of_cells(case: Case) -> Float[Array, "n k"]:
    """NEG − POS where cells of 8×8 go as a whole, in the order of their mean value; equal ones in
    a random order, the same for every image."""
    _, height, width = case.order.shape
    cells = cells_of(height, width, _SIDE)
    inside = jax.nn.one_hot(cells, _SIDE**2)
    means = jnp.einsum("nhw,hwc->nc", case.order, inside)
    means /= jnp.maximum(inside.sum((0, 1)), 1)[None]

    def agreement(values: Float[Array, "n c"]) -> Float[Array, "n k"]:
        order = _whole_cells(values, cells)
        given = case.explainee, case.images, order, case.classes, case.logits, case.chunk
        return curves_of_removal(*given).areas().agreement

    return agreement(means) - agreement(-means)


def _whole_cells(values: Float[Array, "n c"], cells: Int[Array, "H W"]) -> Removal:
    """The removal of the cells with the lowest values first, tenth after tenth of them."""
    n, count = values.shape
    shuffled = jax.random.permutation(jax.random.key(0), count)
    by_value = shuffled[jnp.argsort(values[:, shuffled], axis=-1)]
    rank = jnp.argsort(by_value, axis=-1).astype(jnp.uint32)
    gone = jnp.array([int(count * fraction) for fraction in FRACTIONS], jnp.uint32)
    # All pixels of a cell have its rank, and go with the last cell of a step.
    last = jnp.broadcast_to(gone - 1, (n, len(FRACTIONS)))
    return Removal(rank[:, cells], last, jnp.full_like(last, cells.size))


SOURCE = "symmetric relevance gain, Blücher, Vielhaben & Strodthoff, TMLR 2024"
SRG = Score(
    "srg",
    "SRG",
    "higher",
    -90,
    90,
    "NEG less POS; 0 for a random order",
    SOURCE,
    agreement_gain,
    8,
)
SRG_PROBABILITY = Score(
    "srg_probability",
    "SRG of p",
    "higher",
    -90,
    90,
    "INS less DEL; 0 for a random order",
    SOURCE,
    probability_gain,
    9,
)
SRG_LOGIT = Score(
    "srg_logit",
    "SRG of the logit",
    "higher",
    float("-inf"),
    float("inf"),
    "how much higher the class's logit is as the least relevant pixels go first than as the most "
    "relevant do, over nine tenths of them; 0 for a random order",
    SOURCE,
    logit_gain,
    usual=False,
)
SRG_CELLS = Score(
    "srg_cells",
    "SRG of cells",
    "higher",
    -90,
    90,
    "NEG less POS where whole cells of 8×8 go, equal ones in a random order",
    SOURCE,
    gain_of_cells,
    usual=False,
)
