"""Small masks through which the classes are still seen, and how sure the answer through them is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score


def saliency(case: Case) -> Float[Array, "n k"]:
    """log of the mask's area less log of the class's probability through it."""
    area = case.masks.mean((1, 2))[:, None]
    return log_ratio(area, case.probability(case.masked_logits))


def log_ratio(area: Array, probability: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """log of an area, [n,k] or [n,1], not below 0.05, less log of a probability."""
    tiny = jnp.finfo(probability.dtype).tiny
    return jnp.log(jnp.maximum(area, 0.05)) - jnp.log(jnp.maximum(probability, tiny))


def sparsity(probabilities: Float[Array, "n classes"]) -> Float[Array, " n"]:
    """Σp²: 1 for an answer that is sure."""
    return (probabilities**2).sum(-1)


def entropy(probabilities: Float[Array, "n classes"]) -> Float[Array, " n"]:
    """−Σp·log p, in nats: 0 for an answer that is sure."""
    return -(probabilities * jnp.log(jnp.maximum(probabilities, 1e-15))).sum(-1)


def _shares(case: Case) -> Float[Array, "n classes"]:
    """The softmax of the answer through the mask, whatever the explainee's link."""
    return jax.nn.softmax(case.masked_logits)


_SOURCE = "NN-Explainer, Stalder et al., NeurIPS 2022"
SALIENCY = Score(
    "saliency",
    "saliency",
    "lower",
    -4,
    100,
    "log of the mask's area less log of the class's probability through it",
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
    "sum of the squares of all probabilities through the mask",
    _SOURCE,
    lambda case: sparsity(_shares(case))[:, None],
    usual=False,
)
ENTROPY = Score(
    "entropy",
    "entropy",
    "lower",
    0,
    16,
    "entropy of the probabilities through the mask, in nats",
    _SOURCE,
    lambda case: entropy(_shares(case))[:, None],
    usual=False,
)
