"""Symmetric relevance gain under fills other than black, which no mask was finetuned with."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.symmetric_relevance import SOURCE, gain, gain_score


def gain_under_other(case: Case) -> Float[Array, "n k"]:
    """NEG − POS where the pixels that are gone show another image; NaN where there is none."""
    assert case.other is not None
    known = ~jnp.isnan(case.other).any((1, 2, 3))
    return jnp.where(known[:, None], gain(case, fill=case.other), jnp.nan)


BLUR = gain_score("agreement", "blur")
NOISE = gain_score("agreement", "noise")
OTHER = Score(
    "srg_other",
    "SRG other",
    "higher",
    -90,
    90,
    "NEG less POS where the pixels that are gone show the next image of the run",
    SOURCE,
    gain_under_other,
    usual=False,
    needs_other=True,
)
