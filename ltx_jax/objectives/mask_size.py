"""Mask terms: the mask marks little."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.objectives.term import Drawn, Term


def bce(drawn: Drawn) -> Float[Array, " n"]:
    """The mean of softplus(m): binary cross-entropy "with logits" towards 0, applied to values that
    are no logits (faithful to the original, and its default)."""
    return jax.nn.softplus(_flat(drawn)).mean(-1)


def l1(drawn: Drawn) -> Float[Array, " n"]:
    """The mean of |m|."""
    return jnp.abs(_flat(drawn)).mean(-1)


def entropy(drawn: Drawn) -> Float[Array, " n"]:
    """The entropy of m/Σm divided by that of a uniform mask; of a single token 0."""
    flat = _flat(drawn)
    share = flat / jnp.maximum(flat.sum(-1, keepdims=True), 1e-12)
    # Of nothing there is none; its slope there would be infinite, times 0.
    share = jnp.where(share > 0, share, 1)
    return jax.scipy.special.entr(share).sum(-1) / jnp.log(jnp.float32(max(flat.shape[-1], 2)))


def _flat(drawn: Drawn) -> Float[Array, "n t"]:
    return drawn.token_masks.reshape(len(drawn.token_masks), -1)


_SOURCE = "LTX, arXiv 2310.16584"
BCE = Term("mask_bce", "little is marked", f"{_SOURCE}, the original's default", bce)
L1 = Term("mask_l1", "little is marked", _SOURCE, l1)
ENTROPY = Term("mask_entropy", "what is marked is in few places", _SOURCE, entropy)
