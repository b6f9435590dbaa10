"""Libra FullGrad+ (Mehri, Soleymani Baghshah & Pilehvar 2025)."""

from __future__ import annotations

from dataclasses import replace

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.held_constant import LINEAR, constant
from ltx_jax.attribution.intermediates import gradients
from ltx_jax.attribution.rival import Rival
from ltx_jax.attribution.transformers import computing_by, of_patches
from ltx_jax.models import operations
from ltx_jax.models.explainee import Explainee

_TITLE = "Libra FullGrad+"
# Attention is constant, and so each image's network is affine: a sum of products with its weights.
_LIBRA = replace(LINEAR, softmax=lambda scores: constant(operations.softmax(scores)))
_READ = ("blocks", "values", "mixed")


@jax.jit
def libra(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """Gradient × input of the tokens that enter each block, and gradient × bias of the biases in
    it, at each patch; the sum over the blocks (§2.1 of the paper).

    The biases need no gradient of their own. In a network that is affine in its tokens, gradient ×
    output is gradient × input plus what its biases add, and all but the mixing of the values is of
    one token alone. So with x_l the tokens before block l, v_l its values and m_l what it mixes of
    them, the biases of block l add (x·∇)(l+1) - (x·∇)(l) + (v·∇)(l) - (m·∇)(l) at each token, and
    the sum over blocks of both is Σ (x·∇)(l+1) + (v·∇)(l) - (m·∇)(l).

    Raises:
      InputError: where the explainee is no vision transformer of ours.
    """
    network = computing_by(explainee, _LIBRA, _TITLE)
    found, slopes = gradients(network, images, targets, _READ, _TITLE)
    after, values, mixed = ((found[name] * slopes[name]).sum(-1) for name in _READ)
    tokens = after.sum(0) + (values - mixed).sum((0, 2))
    return of_patches(tokens, found)


LIBRA = Rival(
    "libra_fullgrad_plus",
    _TITLE,
    "Mehri, Soleymani Baghshah & Pilehvar, CVPR 2025",
    "1 gradient",
    libra,
)
