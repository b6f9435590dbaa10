"""Symmetric relevance gain under fills other than black, which no mask was finetuned with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.symmetric_relevance import SOURCE, gain


def gain_under_other(case: Case) -> Float[Array, "n k"]:
    """NEG − POS where the pixels that are gone show another image; NaN where there is none."""
    assert case.other is not None
    known = ~jnp.isnan(case.other).any((1, 2, 3))
    return jnp.where(known[:, None], gain(case, fill=case.other), jnp.nan)


def _score(
    fill: str, shown: str, values: Callable[[Case], Array], needs_other: bool = False
) -> Score:
    return Score(
        f"srg_{fill}",
        f"SRG {fill}",
        "higher",
        -90,
        90,
        f"NEG less POS where the pixels that are gone show {shown}",
        SOURCE,
        values,
        usual=False,
        needs_other=needs_other,
    )


def _named(fill: str, shown: str) -> Score:
    return _score(fill, shown, partial(gain, fill=fill))


BLUR = _named("blur", "the image blurred")
NOISE = _named("noise", "noise about the image's mean colour")
OTHER = _score("other", "the next image of the run", gain_under_other, needs_other=True)
