"""Transformer attribution, T-Attr (Chefer, Gur & Wolf, CVPR 2021), and what it is compared with:
other ways to read the relevance of the same network."""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.intermediates import gradients
from ltx_jax.attribution.relevance import RELEVANCE
from ltx_jax.attribution.rival import Rival, target_logits
from ltx_jax.attribution.transformers import (
    computing_by,
    network_of,
    of_patches,
    reading,
    rolled_out,
    with_residual,
)
from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee, Intermediates
from ltx_jax.models.layers import per_channel

_SOURCE = "Chefer, Gur & Wolf, CVPR 2021"
_TITLE = "transformer attribution"


@jax.jit
def transformer_attribution(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The row of the class token in the product of the blocks' Ā + 1 (eq. 13, 14), Ā the mean over
    heads of the positive part of ∇A ⊙ R_A, the gradient of attention times its relevance.

    As the authors' code: rows are not normalised.

    Raises:
      InputError: where the explainee is no vision transformer that reads its class token alone.
    """
    found, relevance = _relevance(explainee, images, targets, _TITLE)
    _, slopes = gradients(explainee, images, targets, ["attention"], _TITLE)
    maps = jax.nn.relu(slopes["attention"] * relevance).mean(2)
    return of_patches(rolled_out(reading(found), with_residual(maps)), found)


@jax.jit
def lrp_rollout(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The same product, Ā the mean over heads of the attention's positive relevance.

    Raises:
      InputError: where the explainee is no vision transformer that reads its class token alone.
    """
    found, relevance = _relevance(explainee, images, targets, "LRP rollout")
    maps = jax.nn.relu(relevance).mean(2)
    return of_patches(rolled_out(reading(found), with_residual(maps)), found)


@jax.jit
def partial_lrp(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The positive relevance of the last block's attention of the class token to each patch.

    Raises:
      InputError: where the explainee is no vision transformer that reads its class token alone.
    """
    found, relevance = _relevance(explainee, images, targets, "partial LRP")
    return of_patches(jax.nn.relu(relevance[-1]).mean(1)[:, 0], found)


@jax.jit
def full_lrp(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n H W"]:
    """The relevance of each pixel, summed over its channels.

    Raises:
      InputError: where the explainee is no vision transformer that reads its class token alone.
    """
    network = _relevant(explainee, "full LRP")
    features, _ = network_of(network, "full LRP")
    relevance = jax.grad(target_logits, argnums=1)(network, images, targets)
    # It is that of normalised pixels, whose chain rule has divided it by the deviations.
    return (relevance * per_channel(features.std, images)).sum(-1)


def _relevance(
    explainee: Explainee, images: Array, targets: Array, method: str
) -> tuple[Intermediates, Float[Array, "depth n h t t"]]:
    """Intermediates, and the relevance of every attention map."""
    network = _relevant(explainee, method)
    found, relevances = gradients(network, images, targets, ["attention"], method)
    return found, relevances["attention"]


def _relevant(explainee: Explainee, method: str) -> Explainee:
    """The explainee whose logits send back relevance."""
    _, module = network_of(explainee, method)
    if module.averaged or module.distilled:
        what = "a mean of its patches" if module.averaged else "a distillation token as well"
        raise InputError(
            f"{explainee.name} reads {what}, for which {method} has no rule: leave this rival out"
        )
    return computing_by(explainee, RELEVANCE, method)


TRANSFORMER_ATTRIBUTION = Rival(
    "transformer_attribution",
    _TITLE,
    _SOURCE,
    "1 gradient, 1 pass of relevance",
    transformer_attribution,
)
LRP_ROLLOUT = Rival("lrp_rollout", "LRP rollout", _SOURCE, "1 pass of relevance", lrp_rollout)
PARTIAL_LRP = Rival(
    "partial_lrp",
    "partial LRP",
    "Voita, Talbot, Moiseev, Sennrich & Titov, ACL 2019, as in Chefer, Gur & Wolf, CVPR 2021",
    "1 pass of relevance",
    partial_lrp,
)
FULL_LRP = Rival("full_lrp", "LRP", _SOURCE, "1 pass of relevance", full_lrp)
