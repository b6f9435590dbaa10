"""AdamW for many independent optimisations at once."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.explainers.leaves import Leaves, Moments

# A factored second moment has two leaves in the place of a kernel's one.
_KERNEL, _ROWS, _COLUMNS = "/kernel", "/rows", "/columns"
_TINY = 1e-30


class AdamW(NamedTuple):
    """Hyper-parameters with PyTorch's names and defaults.

    `first_moment` is the type that the first moment is kept in: `bfloat16` saves an eighth of a
    slot's memory. `second_moment` is `full`, or `factored`: of a kernel only the means over its
    rows and over its columns are kept (Adafactor, Shazeer & Stern 2018, eq. 4), which saves a
    quarter. The arithmetic is float32 either way.
    """

    first_moment: str
    second_moment: str
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


def kept(settings: AdamW, moments: Moments) -> Moments:
    """Full moments in the form that the settings keep them in."""
    first = {path: leaf.astype(settings.first_moment) for path, leaf in moments.first.items()}
    if settings.second_moment == "full":
        return Moments(first, moments.second)
    second = {}
    for path, leaf in moments.second.items():
        if path.endswith(_KERNEL):
            second[path + _ROWS], second[path + _COLUMNS] = leaf.mean(-1), leaf.mean(-2)
        else:
            second[path] = leaf
    return Moments(first, second)


def _mean_square(beta: float, second: Leaves, path: str, gradient: Array) -> tuple[Array, Leaves]:
    """The running mean of the squared gradient, and what is kept of it."""
    square = gradient**2

    def mean(path: str, new: Array) -> Array:
        return beta * second[path] + (1 - beta) * new

    if path in second:
        full = mean(path, square)
        return full, {path: full}
    rows = mean(path + _ROWS, square.mean(-1))
    columns = mean(path + _COLUMNS, square.mean(-2))
    scale = jnp.maximum(rows.mean(-1, keepdims=True), _TINY)
    full = (rows / scale)[..., :, None] * columns[..., None, :]
    return full, {path + _ROWS: rows, path + _COLUMNS: columns}


def update(
    settings: AdamW,
    trained: Leaves,
    gradients: Leaves,
    moments: Moments,
    count: Int[Array, " slots"],
    learning_rate: Float[Array, " slots"],
    weight_decay: Float[Array, ""],
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
      weight_decay: of all.
      slot_axes: where each leaf has its slot axis.
    """
    # One division a parameter: of two in a row, compilers make one, or do not, and the last digit
    # would depend on the number of devices. 1 − β^count as an expm1: subtracted in float32 it makes
    # the first steps of β = 0.999 wrong by 1e-5 of their length, a hundred roundings.
    taken = count.astype(jnp.float32)
    step_size = learning_rate / -jnp.expm1(taken * log(settings.beta1))
    root_scale = 1 / jnp.sqrt(-jnp.expm1(taken * log(settings.beta2)))
    kept_share = 1 - learning_rate * weight_decay
    new, first = {}, {}
    second: Leaves = {}
    for path, gradient in gradients.items():

        def per_slot(value: Array, like: Array = gradient, axis: int = slot_axes[path]) -> Array:
            return value.reshape([-1 if i == axis else 1 for i in range(like.ndim)])

        m = moments.first[path].astype(jnp.float32)
        m = settings.beta1 * m + (1 - settings.beta1) * gradient
        v, keep = _mean_square(settings.beta2, moments.second, path, gradient)
        step = m / (jnp.sqrt(v) * per_slot(root_scale) + settings.epsilon)
        new[path] = per_slot(kept_share) * trained[path] - per_slot(step_size) * step
        first[path] = m.astype(settings.first_moment)
        second |= keep
    return new, Moments(first, second)
