"""Perturbation scores: areas under agreement (POS and NEG) and under probability (DEL and INS)."""

from __future__ import annotations

from collections.abc import Callable

from jax import Array

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Better, Score


def curves_of(case: Case) -> dict[str, Array]:
    """The curve [n,k,points] under which each of these scores is the area, by its name."""
    first, last = case.curves(True), case.curves(False)
    return {
        "pos": first.agreement,
        "neg": last.agreement,
        "ins": last.probability,
        "del": first.probability,
    }


def _score(
    column: int, name: str, better: Better, meaning: str, area: Callable[[Case], Array]
) -> Score:
    source = "the original's eval_perturbation_test"
    return Score(name, name.upper(), better, 0, 90, meaning, source, area, column)


POS = _score(
    1,
    "pos",
    "lower",
    "area under agreement, most relevant pixels removed first",
    lambda case: case.most_relevant_first.agreement,
)
NEG = _score(
    2,
    "neg",
    "higher",
    "area under agreement, least relevant pixels removed first",
    lambda case: case.least_relevant_first.agreement,
)
INS = _score(
    3,
    "ins",
    "higher",
    "area under probability, least relevant pixels removed first",
    lambda case: case.least_relevant_first.probability,
)
DEL = _score(
    4,
    "del",
    "lower",
    "area under probability, most relevant pixels removed first",
    lambda case: case.most_relevant_first.probability,
)
