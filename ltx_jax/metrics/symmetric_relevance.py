"""Symmetric relevance gain: least relevant first minus most relevant first.

Of agreement, of the class's probability and of its logit; of pixels, which where they are alike go
in reading order, and of whole cells, where they go in a random one; under black and the mean.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.masks.covering import Fill
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.grid import cells_of, means_of_cells
from ltx_jax.metrics.perturbation import FRACTIONS, Curves, Removal, curves_of_removal
from ltx_jax.metrics.score import Score

# Cells a side, of the scores whose cells go as a whole.
_SIDE = 8

# What remains of the prediction.
Quantity = Literal["agreement", "probability", "logit"]


def gain(case: Case, of: Quantity = "agreement", fill: Fill = "black") -> Float[Array, "n k"]:
    """How much more of the prediction remains as the least relevant pixels go first than as the
    most relevant do: of agreement NEG − POS, of the probability INS − DEL; of the logit the mean
    over the curve.

    Args:
      case: masks.
      of: what remains.
      fill: what stands where pixels are gone.
    """
    if of == "logit":
        return _logit_gain(case.curves(True, fill), case.curves(False, fill))
    first, last = (getattr(case.areas(order, fill), of) for order in (True, False))
    return last - first


def gain_of_cells(
    case: Case, of: Quantity = "agreement", fill: Fill = "black"
) -> Float[Array, "n k"]:
    """The same where cells of 8×8 go as a whole, in the order of their mean value; equal ones in a
    random order, the same for every image."""
    _, height, width = case.order.shape
    cells = cells_of(height, width, _SIDE)
    means = means_of_cells(case.order, _SIDE)

    def curves(values: Float[Array, "n c"]) -> Curves:
        order = _whole_cells(values, cells)
        given = case.explainee, case.images, order, case.classes, case.logits, case.chunk
        return curves_of_removal(*given, fill)

    first, last = curves(-means), curves(means)
    if of == "logit":
        return _logit_gain(first, last)
    return getattr(last.areas(), of) - getattr(first.areas(), of)


def _logit_gain(first: Curves, last: Curves) -> Float[Array, "n k"]:
    return jnp.trapezoid(last.logit - first.logit, axis=-1) / len(FRACTIONS)


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
_TITLES = {"agreement": "", "probability": " of p", "logit": " of the logit"}
# What stands where pixels are gone, but for black.
_SHOWN = {
    "mean": "the image's mean colour",
    "blur": "the image blurred",
    "noise": "noise about the image's mean colour",
}
_DIFFERENCES = {
    "agreement": "NEG less POS",
    "probability": "INS less DEL",
    "logit": "how much higher the class's logit is as the least relevant go first than as the most "
    "relevant do",
}


def gain_score(of: Quantity, fill: str = "black", cells: bool = False, column: int = 100) -> Score:
    """The gain of a quantity under a fill, of pixels or of cells."""
    marks = [mark for mark, there in (("cells", cells), (fill, fill != "black")) if there]
    name = "_".join(["srg", *marks, *([] if of == "agreement" else [of])])
    title = " ".join(["SRG", *(f"of {m}" if m == "cells" else m for m in marks)]) + _TITLES[of]
    highest = float("inf") if of == "logit" else 90
    where = " where whole cells of 8×8 go, equal ones in a random order" * cells
    shown = f" where the pixels that are gone show {_SHOWN[fill]}" if fill in _SHOWN else ""
    values = partial(gain_of_cells if cells else gain, of=of, fill=fill)
    return Score(
        name,
        title,
        "higher",
        -highest,
        highest,
        f"{_DIFFERENCES[of]}{where}{',' * bool(where and shown)}{shown}; 0 for a random order",
        SOURCE,
        values,
        column,
        usual=column < 100,
    )


SRG = gain_score("agreement", column=8)
SRG_PROBABILITY = gain_score("probability", column=9)
SRG_LOGIT = gain_score("logit")
SRG_MEAN = gain_score("agreement", "mean")
SRG_MEAN_PROBABILITY = gain_score("probability", "mean")
SRG_MEAN_LOGIT = gain_score("logit", "mean")
SRG_CELLS = gain_score("agreement", cells=True)
SRG_CELLS_PROBABILITY = gain_score("probability", cells=True)
SRG_CELLS_LOGIT = gain_score("logit", cells=True)
SRG_CELLS_MEAN = gain_score("agreement", "mean", cells=True)
SRG_CELLS_MEAN_PROBABILITY = gain_score("probability", "mean", cells=True)
SRG_CELLS_MEAN_LOGIT = gain_score("logit", "mean", cells=True)
