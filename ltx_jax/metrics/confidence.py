"""Confidence through the mask: average drop (ADP) and increase (PIC), Chattopadhay et al. 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Confidence(NamedTuple):
    """Of each image and class, [n,k]: `adp`, `pic` in percent; `probability` through the mask."""

    adp: Float[Array, "n k"]
    pic: Float[Array, "n k"]
    probability: Float[Array, "n k"]


def class_probability(
    logits: Float[Array | np.ndarray, "n classes"], classes: Int[Array | np.ndarray, "n k"]
) -> Float[Array, "n k"]:
    """The probability of each of the given classes."""
    return jnp.take_along_axis(jax.nn.softmax(logits), classes, axis=-1)


def confidence(
    logits: Float[Array | np.ndarray, "n classes"],
    masked_logits: Float[Array | np.ndarray, "n classes"],
    classes: Int[Array | np.ndarray, "n k"],
) -> Confidence:
    """How the mask changes the probability of each class.

    ADP is the share of the probability that is lost, 100·max(0, p(x) − p(x·m)) / p(x); PIC is 100
    where the probability rises, else 0. Their means over images are the scores.
    """
    before = class_probability(logits, classes)
    after = class_probability(masked_logits, classes)
    drop = 100.0 * jnp.maximum(0.0, before - after) / before
    return Confidence(drop, 100.0 * (before < after), after)
