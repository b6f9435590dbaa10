"""Single deletion of cells (after IDSDS, Hesse, Schaub-Meyer & Roth, NeurIPS 2024)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.grid import cells_of, logits_under, means_of_cells
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.single_deletion import spearman
from ltx_jax.models.links import of_class

# Cells a side.
SIDE = 4


def single_cell_deletion(case: Case) -> Float[Array, "n k"]:
    """Spearman correlation over 4×4 cells between the drop of the class's logit as that cell alone
    is black, and the mean of the relevance in it; NaN where one side is constant."""
    _, height, width = case.relevance.shape
    cells = cells_of(height, width, SIDE)
    alone = cells[None] == jnp.arange(SIDE * SIDE, dtype=jnp.int32)[:, None, None]
    drops = case.logits[:, None] - logits_under(case, ~alone)
    drops = of_class(drops[:, None], case.classes[..., None])
    inside = means_of_cells(case.relevance, SIDE)
    return spearman(drops, inside[:, None], jnp.ones_like(inside, bool)[:, None])


SINGLE_CELL = Score(
    "single_cell",
    "single cell",
    "higher",
    -1,
    1,
    "rank correlation over 4×4 cells of the mask in each with what the class's logit loses as it "
    "alone is black; IDSDS where the classifier was trained with cells deleted",
    "after IDSDS, Hesse, Schaub-Meyer & Roth, NeurIPS 2024",
    single_cell_deletion,
    usual=False,
)
