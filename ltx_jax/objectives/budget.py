"""The budget: for any number of pixels, those that are marked are the ones that count."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.objectives.term import Drawn, Term

# Nats beyond which a class is gone: a probability of a quarter of a percent.
_GONE = 6.0


def budget(drawn: Drawn) -> Float[Array, " n"]:
    """CE(x_k, t) − min(CE(x_∖k, t), 6), of a share k of the pixels that is drawn for each image.

    x_k shows the k most relevant pixels, softly (`Drawn.budget_masks`), and x_∖k the others; what
    is hidden has the fill that is drawn. Over the steps this is the area between the curves of
    keeping and of removing the most relevant pixels first, in expectation: the order of all pixels
    is optimised, whatever their values.
    """
    kept, hidden = (
        drawn.explainee.misfit(drawn.logits[view], drawn.targets)
        for view in ("budget_kept", "budget_hidden")
    )
    return kept - jnp.minimum(hidden, _GONE)


BUDGET = Term(
    "budget",
    "any share of the pixels keeps the class where it is the marked ones, and loses it where those "
    "are hidden",
    "ours; nearest are extremal perturbations (Fong, Patrick & Vedaldi, ICCV 2019) and iGOS++ "
    "(Khorram, Lawson & Li, CHIL 2021)",
    budget,
    ("budget_kept", "budget_hidden"),
)
