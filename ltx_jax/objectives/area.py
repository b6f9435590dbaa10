"""Area terms: the mask marks a given share of the cells, and marks them wholly."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.objectives.term import Drawn, Term


def area_misfit(drawn: Drawn, percent: int) -> Float[Array, " n"]:
    """The mean squared difference of the sorted mask values and a step: zeros, then ones for the
    area's share of the cells, rounded up (as TorchRay, the authors' code, does).

    Args:
      drawn: masks in [0,1].
      percent: the area, of the cells.
    """
    flat = drawn.token_masks.reshape(len(drawn.token_masks), -1)
    cells = flat.shape[-1]
    zeros = cells * (100 - percent) // 100
    step = (jnp.arange(cells) >= zeros).astype(flat.dtype)
    return ((jnp.sort(flat, axis=-1) - step[None]) ** 2).mean(-1)


def _area(percent: int) -> Term:
    return Term(
        f"area_{percent}",
        f"{percent} % of the cells are marked, the others not at all",
        "Fong, Patrick & Vedaldi, ICCV 2019, the area constraint R_a",
        lambda drawn: area_misfit(drawn, percent),
    )


# Three of the four areas of the paper's pointing game on VOC; a tenth is TorchRay's default.
AREA_5, AREA_10, AREA_20 = map(_area, (5, 10, 20))
