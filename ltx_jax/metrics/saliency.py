"""Small masks through which the classes are still seen, and how sure the answer through them is.

All by the softmax of the answer, what is hidden being of the mean colour (`Case.shares`).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.models.links import of_class


def share(case: Case) -> Float[Array, "n k"]:
    """The class's share of the answer through the mask."""
    return of_class(case.shares[:, None], case.classes)


def saliency(case: Case) -> Float[Array, "n k"]:
    """log of the mask's area less log of the class's share through it."""
    return log_ratio(case.masks.mean((1, 2))[:, None], share(case))


def log_ratio(area: Array, share: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """log of an area, [n,k] or [n,1], not below 0.05, less log of a share of the answer."""
    tiny = jnp.finfo(share.dtype).tiny
    return jnp.log(jnp.maximum(area, 0.05)) - jnp.log(jnp.maximum(share, tiny))


def sparsity(shares: Float[Array, "n classes"]) -> Float[Array, " n"]:
    """Σp²: 1 for an answer that is sure."""
    return (shares**2).sum(-1)


def entropy(shares: Float[Array, "n classes"]) -> Float[Array, " n"]:
    """−Σp·log p, in nats: 0 for an answer that is sure."""
    return -(shares * jnp.log(jnp.maximum(shares, 1e-15))).sum(-1)


_SOURCE = "NN-Explainer, Stalder et al., NeurIPS 2022"
SHARE = Score(
    "share",
    "share",
    "higher",
    0,
    1,
    "softmax of the class through the mask, what is hidden being of the mean colour",
    _SOURCE,
    share,
    usual=False,
)
SALIENCY = Score(
    "saliency",
    "saliency",
    "lower",
    -4,
    100,
    "log of the mask's area less log of the class's share of the answer through it",
    f"Dabkowski & Gal, NeurIPS 2017; {_SOURCE}",
    saliency,
    usual=False,
)
SPARSITY = Score(
    "sparsity",
    "sparsity",
    "higher",
    0,
    1,
    "sum of the squares of all classes' shares of the answer through the mask",
    _SOURCE,
    lambda case: sparsity(case.shares)[:, None],
    usual=False,
)
ENTROPY = Score(
    "entropy",
    "entropy",
    "lower",
    0,
    16,
    "entropy of all classes' shares of the answer through the mask, in nats",
    _SOURCE,
    lambda case: entropy(case.shares)[:, None],
    usual=False,
)
