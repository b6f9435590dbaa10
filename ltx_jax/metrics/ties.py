"""How much of an order is no order."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score


def tied_share(case: Case) -> Float[Array, "n 1"]:
    """Percent of the pixels whose value another pixel has as well."""
    values = jnp.sort(case.order.reshape(len(case.order), -1))
    same = values[:, 1:] == values[:, :-1]
    alone = jnp.zeros_like(same[:, :1])
    tied = jnp.concatenate([same, alone], 1) | jnp.concatenate([alone, same], 1)
    return 100.0 * tied.mean(1, dtype=jnp.float32)[:, None]


TIED = Score(
    "tied",
    "tied",
    "lower",
    0,
    100,
    "share of the pixels that have the value of another, and so go in reading order",
    "what every score that ranks pixels rests on",
    tied_share,
    10,
)
