"""The LTX objective: keep the prediction through the mask, and mark little (arXiv 2310.16584)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ltx_jax.explainee import Explainee
from ltx_jax.explainers.masks import upsample

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MASK_LOSSES = ("bce", "l1", "entropy")


@dataclass(frozen=True)
class Objective:
    """What makes a mask good.

    Attributes:
      mask_weight: λ, the weight of the mask term; the prediction term has weight 1.
      mask_loss: `bce`, `l1` or `entropy`, see `mask_term`.
      logits_only: the prediction term is minus the target's logit instead of the cross-entropy.
      counterfactual: the prediction term also asks that the target be lost where the marked
        pixels go (the original's `is_ce_neg`).
    """

    mask_weight: float = 50.0
    mask_loss: str = "bce"
    logits_only: bool = False
    counterfactual: bool = False


class LossTerms(NamedTuple):
    """Losses of each image, [n] each: `total` = `prediction` + λ·`mask`, both unweighted."""

    total: Float[Array, " n"]
    prediction: Float[Array, " n"]
    mask: Float[Array, " n"]


def losses(
    objective: Objective,
    explainee: Explainee,
    images: Float[Array | np.ndarray, "n H W 3"],
    token_masks: Float[Array | np.ndarray, "n g h"],
    targets: Int[Array | np.ndarray, " n"],
) -> LossTerms:
    """The objective for each image; its mean over a batch is the original's batch loss.

    The mask multiplies the image in [0,1] space, so that what it hides is black.
    """
    visible = upsample(token_masks, images.shape[1:3])[..., None]
    fit = _misfit(explainee(images * visible), targets, objective.logits_only)
    if objective.counterfactual:
        hidden = _misfit(explainee(images * (1 - visible)), targets, objective.logits_only)
        fit = 0.5 * (fit - hidden)
    area = mask_term(token_masks, objective.mask_loss)
    return LossTerms(fit + objective.mask_weight * area, fit, area)


def mask_term(token_masks: Float[Array | np.ndarray, "n g h"], kind: str) -> Float[Array, " n"]:
    """How much each mask marks.

    Args:
      token_masks: masks in [0,1].
      kind: `bce`, the mean of softplus(m): binary cross-entropy "with logits" towards 0, applied
        to values that are no logits (faithful to the original, and its default); `l1`, the mean
        of |m|; `entropy`, the entropy of m/Σm divided by that of a uniform mask.

    Raises:
      ValueError: for another kind.
    """
    flat = token_masks.reshape(token_masks.shape[0], -1)
    if kind == "bce":
        return jax.nn.softplus(flat).mean(-1)
    if kind == "l1":
        return jnp.abs(flat).mean(-1)
    if kind == "entropy":
        share = flat / jnp.maximum(flat.sum(-1, keepdims=True), 1e-12)
        return jax.scipy.special.entr(share).sum(-1) / jnp.log(flat.shape[-1])
    raise ValueError(f"mask_loss {kind!r} is not one of {', '.join(MASK_LOSSES)}")


def _misfit(
    logits: Float[Array, "n classes"], targets: Int[Array | np.ndarray, " n"], logits_only: bool
) -> Float[Array, " n"]:
    if logits_only:
        return -jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
