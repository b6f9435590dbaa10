"""LeGrad (Bousselham et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.attribution.held_constant import constant
from ltx_jax.attribution.intermediates import gradients
from ltx_jax.attribution.rival import Rival
from ltx_jax.attribution.transformers import computing_by, network_of, of_patches
from ltx_jax.models.explainee import Explainee, Intermediates
from ltx_jax.models.operations import Operations

_TITLE = "LeGrad"


@jax.jit
def legrad(
    explainee: Explainee, images: Float[Array, "n H W C"], targets: Int[Array, " n"]
) -> Float[Array, "n g h"]:
    """The positive gradient of each block's own score with respect to its own attention, the mean
    over queries, heads and blocks.

    The score of a block is the target's logit of the mean of the tokens that leave it, as in the
    authors' code: after the network's last norm, by its classifier.

    Raises:
      InputError: where the explainee is no vision transformer of ours.
    """
    # Nothing goes back from a block into the one before it: the sum of all scores has the gradient
    # of each at its own attention.
    network = computing_by(explainee, Operations(enter=constant), _TITLE)
    features, module = network_of(network, _TITLE)

    def scores(
        params: Any, images: Array, added: Mapping[str, Array]
    ) -> tuple[Array, Intermediates]:
        _, found = features(params, images, added)
        means = found["blocks"].mean(2)
        return module.logits_of(params, means).sum(0), found

    network = replace(network, features=scores)
    found, slopes = gradients(network, images, targets, ["attention"], _TITLE)
    return of_patches(jax.nn.relu(slopes["attention"]).mean((0, 2, 3)), found)


LEGRAD = Rival(
    "legrad",
    _TITLE,
    "Bousselham, Boggust, Chaybouti, Strobelt & Kuehne, ICCV 2025",
    "1 gradient",
    legrad,
)
