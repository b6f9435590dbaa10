"""Relevance in place of a gradient: layer-wise relevance propagation for vision transformers.

The rules of Chefer, Gur & Wolf (CVPR 2021). By these operations a network computes what it always
does, and what its logit sends back to an activation is no gradient but the relevance of it. So the
pull-back of a class is the relevance of everything there is in the network, and where an activation
is read twice its relevances add up, as gradients do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.attribution.held_constant import norm_of_constant_deviation
from ltx_jax.models import operations
from ltx_jax.models.layers import precision
from ltx_jax.models.operations import Operations

Function = Callable[..., Array]
Relevances = tuple[Any, ...]
# Keeps a division by next to nothing finite.
_LEAST = 1e-9


def _divided(a: Array, b: Array) -> Array:
    """a / b, 0 where b is."""
    stable = b + _LEAST
    return jnp.where(b == 0, 0, a / jnp.where(stable == 0, _LEAST, stable))


def contributions(function: Function, inputs: tuple[Array, ...], relevance: Array) -> list[Array]:
    """What each input has of the relevance of a function that is linear in it: its part in
    each output, x ⊙ ∂f/∂x applied to R / f(x)."""
    with precision(jnp.float32):  # traced when the network's own has been left
        outputs, pull = jax.vjp(function, *inputs)
        slopes = pull(_divided(relevance, outputs))
    return [value * slope for value, slope in zip(inputs, slopes, strict=True)]


def _with_relevance(
    function: Function, rule: Callable[[tuple[Any, ...], Array], Relevances]
) -> Function:
    """The function, which sends relevance back to its inputs by a rule.

    Args:
      function: of any inputs.
      rule: (inputs, relevance of the output) to the relevance of each input.
    """
    ruled = jax.custom_vjp(function)
    ruled.defvjp(lambda *inputs: (function(*inputs), inputs), rule)
    return ruled


def _passed_on(function: Function) -> Function:
    """The function of one array, whose elements' relevance is that of the elements in their place;
    anything else that it takes has none."""

    def rule(inputs: tuple[Any, ...], relevance: Array) -> Relevances:
        return relevance, *jax.tree.map(jnp.zeros_like, inputs[1:])

    return _with_relevance(function, rule)


def _parts(values: Array) -> tuple[Array, Array]:
    """The positive part and the negative one."""
    return jnp.maximum(values, 0), jnp.minimum(values, 0)


def _positive_contributions(
    inputs: tuple[Array, Array, Array | None], relevance: Array
) -> Relevances:
    """The α-β rule with α = 1 and β = 0: what is positive of x·W shares the relevance."""
    x, kernel, bias = inputs
    positive, negative = _parts(kernel)
    both = contributions(lambda p, n: p @ positive + n @ negative, _parts(x), relevance)
    return both[0] + both[1], *jax.tree.map(jnp.zeros_like, (kernel, bias))


def _within_bounds(inputs: tuple[Array, Array, Array | None], relevance: Array) -> Relevances:
    """The rule for pixels, z^B (Montavon et al. 2017): their distance from the darkest and the
    brightest value of the image shares the relevance."""
    x, kernel, bias = inputs
    positive, negative = _parts(kernel)
    bounds = (jnp.broadcast_to(end((1, 2), keepdims=True), x.shape) for end in (x.min, x.max))
    three = contributions(
        lambda x, low, high: x @ kernel - low @ positive - high @ negative, (x, *bounds), relevance
    )
    return three[0] + three[1] + three[2], *jax.tree.map(jnp.zeros_like, (kernel, bias))


def _half_each(function: Function) -> Callable[[tuple[Array, Array], Array], Relevances]:
    """The rule for a product of two activations: each has half of the relevance."""
    return lambda inputs, relevance: tuple(
        part / 2 for part in contributions(function, inputs, relevance)
    )


def _shared_out(inputs: tuple[Array, Array], relevance: Array) -> Relevances:
    """The rule for sums: the relevance of each image is shared out as the absolute values
    of both summands' totals, which keeps contributions that cancel from growing."""
    summands = tuple(jnp.broadcast_to(summand, relevance.shape) for summand in inputs)
    parts = contributions(jnp.add, summands, relevance)
    totals = [_of_image(part) for part in parts]
    whole = jnp.abs(totals[0]) + jnp.abs(totals[1])
    shares = [_divided(jnp.abs(total), whole) * _of_image(relevance) for total in totals]
    scaled = [
        part * _divided(share, total)
        for part, share, total in zip(parts, shares, totals, strict=True)
    ]
    return tuple(
        part if part.shape == summand.shape else part.sum(0, keepdims=True)
        for part, summand in zip(scaled, inputs, strict=True)
    )


def _of_image(values: Float[Array, "n t d"]) -> Float[Array, "n 1 1"]:
    return values.sum((1, 2), keepdims=True)


_sum = _with_relevance(jnp.add, _shared_out)

RELEVANCE = Operations(
    embed=_with_relevance(operations.affine, _within_bounds),
    place=_sum,
    norm=_passed_on(norm_of_constant_deviation),
    dense=_with_relevance(operations.affine, _positive_contributions),
    scale=_passed_on(jnp.multiply),
    scores=_with_relevance(operations.scores, _half_each(operations.scores)),
    softmax=_passed_on(operations.softmax),
    mix=_with_relevance(operations.mix, _half_each(operations.mix)),
    add=_sum,
    gelu=_passed_on(operations.gelu),
)
