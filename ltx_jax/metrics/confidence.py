"""Confidence through the mask (Chattopadhay et al. 2018, sections 4.1.1 and 4.1.2)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score


def average_drop(case: Case) -> Float[Array, "n k"]:
    """100·max(0, p(x) − p(x·m)) / p(x); 0 where p(x) is 0, as there is nothing to lose."""
    before, after = case.probability(case.logits), case.probability(case.masked_logits)
    some = before > 0
    lost = 100.0 * jnp.maximum(0.0, before - after) / jnp.where(some, before, 1.0)
    return jnp.where(some, lost, 0.0)


def increase(case: Case) -> Float[Array, "n k"]:
    """100 where the probability rises, else 0; NaN where it is."""
    before, after = case.probability(case.logits), case.probability(case.masked_logits)
    rises = 100.0 * (before < after).astype(jnp.float32)
    return jnp.where(jnp.isnan(after), jnp.nan, rises)


ADP = Score(
    "adp",
    "ADP",
    "lower",
    0,
    100,
    "share of the probability that is lost through the mask",
    "average drop, Chattopadhay et al. 2018",
    average_drop,
    5,
)
PIC = Score(
    "pic",
    "PIC",
    "higher",
    0,
    100,
    "share of images whose probability rises through the mask",
    "increase in confidence, Chattopadhay et al. 2018",
    increase,
    6,
)
