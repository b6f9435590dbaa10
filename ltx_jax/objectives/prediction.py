"""Prediction terms: the explainee still sees the class through the mask."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from ltx_jax.models.links import of_class
from ltx_jax.objectives.term import Drawn, Term


def cross_entropy(drawn: Drawn) -> Float[Array, " n"]:
    """Cross-entropy of the prediction through the mask with the class."""
    return drawn.explainee.misfit(drawn.logits["kept"], drawn.targets)


def minus_logit(drawn: Drawn) -> Float[Array, " n"]:
    """Minus the class's logit through the mask."""
    return -of_class(drawn.logits["kept"], drawn.targets)


def counterfactual(drawn: Drawn) -> Float[Array, " n"]:
    """½·(CE(x·m, t) − CE(x·(1−m), t)): where the marked pixels go, the class does too."""
    hidden = drawn.explainee.misfit(drawn.logits["hidden"], drawn.targets)
    return 0.5 * (cross_entropy(drawn) - hidden)


def counterfactual_logit(drawn: Drawn) -> Float[Array, " n"]:
    """The same with minus the class's logit in the place of its cross-entropy."""
    return 0.5 * (minus_logit(drawn) + of_class(drawn.logits["hidden"], drawn.targets))


_SOURCE = "LTX, arXiv 2310.16584"
_KEPT, _BOTH = ("kept",), ("kept", "hidden")
CROSS_ENTROPY = Term("cross_entropy", "the class is kept", _SOURCE, cross_entropy, _KEPT)
LOGIT = Term("logit", "the class's logit is high", f"{_SOURCE}, logits only", minus_logit, _KEPT)
COUNTERFACTUAL = Term(
    "counterfactual",
    "the class is kept, and lost where the marked pixels go",
    f"{_SOURCE}, the original's is_ce_neg by its formula",
    counterfactual,
    _BOTH,
)
COUNTERFACTUAL_LOGIT = Term(
    "counterfactual_logit", "the same by its logit", _SOURCE, counterfactual_logit, _BOTH
)
