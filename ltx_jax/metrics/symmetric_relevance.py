"""Symmetric relevance gain: least relevant first minus most relevant first."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from ltx_jax.masks.covering import Fill
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score


def agreement_gain(case: Case) -> Float[Array, "n k"]:
    """NEG − POS."""
    return case.least_relevant_first.agreement - case.most_relevant_first.agreement


def agreement_gain_under(case: Case, fill: Fill) -> Float[Array, "n k"]:
    """NEG − POS where another fill than black stands for the pixels that are gone."""
    return case.areas(False, fill).agreement - case.areas(True, fill).agreement


def probability_gain(case: Case) -> Float[Array, "n k"]:
    """INS − DEL."""
    return case.least_relevant_first.probability - case.most_relevant_first.probability


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
