"""From logits to answers: what a classifier's numbers say, and how far they are from a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int


class Link(NamedTuple):
    """How logits [...,classes] are read.

    Attributes:
      probabilities: of each class, in [0,1].
      agreement: (logits [...,classes], classes [...]) whether the answer is (or holds) the class.
      misfit: (logits [n,classes], classes [n]) in nats, the cross-entropy with the class.
    """

    probabilities: Callable[[Float[Array, "... classes"]], Float[Array, "... classes"]]
    agreement: Callable[[Float[Array, "... classes"], Int[Array, ...]], Bool[Array, ...]]
    misfit: Callable[[Float[Array, "n classes"], Int[Array, " n"]], Float[Array, " n"]]


def one_is_the_answer(outputs: int, link: str) -> bool:
    """Whether one class is the answer of a network with so many outputs."""
    return outputs == 1 or link == "softmax"


def of_answers(logits: Float[Array, "... outputs"]) -> Float[Array, "... classes"]:
    """A network's outputs as a logit of each answer, in float32. A single one z says no or yes: its
    two are (−z/2, z/2), whose softmax is the sigmoid of z, and each of which has a gradient."""
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] > 1:
        return logits
    return jnp.concatenate([-0.5 * logits, 0.5 * logits], axis=-1)


def cross_entropy(
    logits: Float[Array, "n classes"], labels: Bool[Array, "n classes"], single: bool
) -> Float[Array, " n"]:
    """Of each image in nats: of the softmax with its class, the first of its labels, where a single
    one is the answer; else the mean over all classes of that of each one's sigmoid."""
    if single:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels.argmax(-1))
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean(-1)


def of_class(values: Float[Array, "... classes"], classes: Int[Array, ...]) -> Float[Array, ...]:
    """The value of one class each; leading axes may be 1 in either."""
    return jnp.take_along_axis(values, classes[..., None], axis=-1)[..., 0]


def _softmax_agreement(
    logits: Float[Array, "... classes"], classes: Int[Array, ...]
) -> Bool[Array, ...]:
    return logits.argmax(-1).astype(classes.dtype) == classes


def _sigmoid_agreement(
    logits: Float[Array, "... classes"], classes: Int[Array, ...]
) -> Bool[Array, ...]:
    return of_class(logits, classes) > 0


def _binary_cross_entropy(
    logits: Float[Array, "n classes"], classes: Int[Array, " n"]
) -> Float[Array, " n"]:
    return jax.nn.softplus(-of_class(logits, classes))


LINKS = {
    # One class is the answer.
    "softmax": Link(
        jax.nn.softmax, _softmax_agreement, optax.softmax_cross_entropy_with_integer_labels
    ),
    # Each class is there, or is not: p > 0.5, which is a logit above 0.
    "sigmoid": Link(jax.nn.sigmoid, _sigmoid_agreement, _binary_cross_entropy),
}
