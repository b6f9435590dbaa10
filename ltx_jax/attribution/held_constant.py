"""Operations whose gradient holds a term constant, so that gradient × input is a relevance.

The rules that AttnLRP (Achtibat et al., ICML 2024), LibraGrad (Mehri et al., CVPR 2025) and ResLRP
(Berend et al. 2026) have in common. Forward, all of them are what they are.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtr
from jaxtyping import Float, Int

from ltx_jax.attribution.rival import target_logits
from ltx_jax.attribution.transformers import computing_by, network_of
from ltx_jax.models import operations
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import per_channel
from ltx_jax.models.operations import Operations

constant = jax.lax.stop_gradient


def norm_of_constant_deviation(
    tokens: Array, scale: Array, bias: Array, epsilon: float | Array
) -> Float[Array, "*n d"]:
    """A layer norm, linear in its input."""
    centred = tokens - tokens.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / constant(deviation) * per_channel(scale, tokens) + per_channel(bias, tokens)


def _gelu_of_constant_gate(inputs: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """x·Φ(x), linear in x."""
    return inputs * constant(ndtr(inputs))


def half(values: Array) -> Array:
    """The same, with half of the gradient: what a product of two factors leaves to each."""
    return 0.5 * values + constant(0.5 * values)


LINEAR = Operations(norm=norm_of_constant_deviation, gelu=_gelu_of_constant_gate)
# Both products of attention are shared out in halves; the softmax keeps its gradient.
HALVED = replace(
    LINEAR,
    scores=lambda query, key: half(operations.scores(query, key)),
    mix=lambda shares, values: half(operations.mix(shares, values)),
)


def patch_relevance(
    explainee: Explainee,
    by: Operations,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    method: str,
) -> Float[Array, "n g h"]:
    """Gradient, as those operations have it, times what the network is given: the normalised
    image; summed over each patch.

    Raises:
      InputError: where the explainee is no vision transformer of ours; `method` is what needs one.
    """
    network = computing_by(explainee, by, method)
    features, module = network_of(network, method)
    gradient = jax.grad(target_logits, argnums=1)(network, images, targets)
    # With (x - mean) / std as the variable the gradient is std times this one.
    relevance = ((images - per_channel(features.mean, images)) * gradient).sum(-1)
    (g, h), p = module.grid, module.patch_size
    return relevance.reshape(-1, g, p, h, p).sum((2, 4))
