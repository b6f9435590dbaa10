"""AdamW for many independent optimisations at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jax import Array

from ltx_jax.explainers.explainer import Leaves

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Moments(NamedTuple):
    """AdamW's running means of the gradient and of its square, leaf by leaf."""

    first: Leaves
    second: Leaves


class AdamW(NamedTuple):
    """Hyper-parameters, PyTorch's names and defaults but for the weight decay of the original.

    `first_moment` is the type that the first moment is kept in: `bfloat16` saves an eighth of a
    slot's memory. The arithmetic is float32 either way.
    """

    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    first_moment: str = "float32"


def update(
    settings: AdamW,
    trained: Leaves,
    gradients: Leaves,
    moments: Moments,
    count: Int[Array, " slots"],
    learning_rate: Float[Array, " slots"],
    slot_axes: dict[str, int],
) -> tuple[Leaves, Moments]:
    """One AdamW step (Loshchilov & Hutter 2019, as PyTorch computes it) for each slot.

    Written out instead of `vmap` over optax: each slot has its own step count and learning rate
    while its leaves keep the slot axis where they have it, so nothing is transposed.

    Args:
      settings: hyper-parameters.
      trained, gradients, moments: leaves with a slot axis.
      count: steps taken by each slot, this one included.
      learning_rate: of each slot.
      slot_axes: where each leaf has its slot axis.
    """
    bias1 = 1 - settings.beta1**count
    bias2 = 1 - settings.beta2**count
    new, first, second = {}, {}, {}
    for path, gradient in gradients.items():

        def per_slot(value: Array, like: Array = gradient, axis: int = slot_axes[path]) -> Array:
            return value.reshape([-1 if i == axis else 1 for i in range(like.ndim)])

        m = moments.first[path].astype(jnp.float32)
        m = settings.beta1 * m + (1 - settings.beta1) * gradient
        v = settings.beta2 * moments.second[path] + (1 - settings.beta2) * gradient**2
        step = (m / per_slot(bias1)) / (jnp.sqrt(v / per_slot(bias2)) + settings.epsilon)
        step = step + settings.weight_decay * trained[path]
        new[path] = trained[path] - per_slot(learning_rate) * step
        first[path], second[path] = m.astype(settings.first_moment), v
    return new, Moments(first, second)
