"""What a vision transformer computes with, and so what its gradients are.

Attribution methods send something else than the gradient back through the same forward: the
gradient with a few terms held constant, or relevance. Each says so by `Operations` of its own: they
give the same values, and have derivatives as the method wants them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.layers import per_channel, precision


def affine(
    inputs: Float[Array, "*n d"], kernel: Float[Array, "d e"], bias: Float[Array, " e"] | None
) -> Float[Array, "*n e"]:
    """x·W + b."""
    outputs = inputs @ kernel
    return outputs if bias is None else outputs + per_channel(bias, outputs)


def gelu(inputs: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """x·Φ(x)."""
    return nn.gelu(inputs, approximate=False)


# A function of its own, since those that have rules for gradients cannot be pickled.
def softmax(scores: Float[Array, "... t"]) -> Float[Array, "... t"]:
    """Softmax over the last axis, as products with the reciprocal of the sum.

    A division would become such a product, or would not, with the number of devices, and the last
    digit of a mask with it. The gradient is made of the shares alone, in fewer passes over them
    than through the sum.
    """
    return _softmax(scores)


@jax.custom_vjp
def _softmax(scores: Array) -> Array:
    powers = jnp.exp(scores - scores.max(-1, keepdims=True))
    return powers * (1 / powers.sum(-1, keepdims=True))


def _softmax_forward(scores: Array) -> tuple[Array, Array]:
    shares = _softmax(scores)
    return shares, shares


def _softmax_backward(shares: Array, gradient: Array) -> tuple[Array]:
    return (shares * (gradient - (gradient * shares).sum(-1, keepdims=True)),)


_softmax.defvjp(_softmax_forward, _softmax_backward)


# As `softmax`.
def scores(query: Float[Array, "n h r e"], key: Float[Array, "n h t e"]) -> Float[Array, "n h r t"]:
    """Each query times each key, in float32. The products of the gradient are in the compute type
    again, where its float32 would make them slow ones."""
    return _scores(query, key)


@jax.custom_vjp
def _scores(query: Array, key: Array) -> Array:
    return jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)


def _scores_forward(query: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
    return _scores(query, key), (query, key)


def _scores_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    query, key = kept
    gradient = gradient.astype(query.dtype)
    with precision(query.dtype):  # traced when the network's own has been left
        return gradient @ key, gradient.swapaxes(-1, -2) @ query


_scores.defvjp(_scores_forward, _scores_backward)


def mix(
    shares: Float[Array, "n h r t"], values: Float[Array, "n h t e"]
) -> Float[Array, "n h r e"]:
    """What each query gets of the values, in their type."""
    return shares.astype(values.dtype) @ values


def _as_it_is(tokens: Array) -> Array:
    return tokens


Affine = Callable[[Array, Array, Array | None], Array]
Product = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Operations:
    """The operations of a ViT, in the order in which it uses them; by default with the derivatives
    that they have.

    Attributes:
      embed: patches [n,t,c], kernel and bias to tokens.
      place: tokens and their positions to their sum.
      enter: the tokens before a block to what enters it.
      norm: tokens, scale, bias and epsilon to normed tokens; None for Flax's layer norm.
      dense: of every other affine layer, that of the classifier too.
      scale: an array and constant factors to their product: LayerScale, and the queries' scaling.
      scores: queries [n,h,r,e] and keys [n,h,t,e] to [n,h,r,t].
      softmax: scores to attention maps.
      mix: attention maps and values to [n,h,r,e].
      add: tokens and their update by a branch to the residual sum.
      gelu: the activation.
    """

    embed: Affine = affine
    place: Product = operator.add
    enter: Callable[[Array], Array] = _as_it_is
    norm: Callable[[Array, Array, Array, float], Array] | None = None
    dense: Affine = affine
    scale: Product = operator.mul
    scores: Product = scores
    softmax: Callable[[Array], Array] = softmax
    mix: Product = mix
    add: Product = operator.add
    gelu: Callable[[Array], Array] = gelu


GRADIENT = Operations()


class Norm(nn.Module):
    """A layer norm by `Operations.norm`, with the parameters of Flax's."""

    normalise: Callable[[Array, Array, Array, float], Array]
    epsilon: float

    @nn.compact
    def __call__(self, tokens: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Tokens with each normalised over its values, scaled and shifted."""
        shape = tokens.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return self.normalise(tokens, scale, bias, self.epsilon)


def layer_norm(operations: Operations, epsilon: float, name: str) -> nn.Module:
    """A layer norm of that name."""
    if operations.norm is None:
        return nn.LayerNorm(epsilon=epsilon, name=name)
    return Norm(operations.norm, epsilon, name=name)
