"""Pretraining: the loss of a batch for `engine.training`, and the scores of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.masks.tokens import activate, upsample
from ltx_jax.metrics import SCORES
from ltx_jax.metrics.case import Case
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import as_input
from ltx_jax.objectives import Goal, losses

_SCORES = ("pos", "neg", "ins", "del", "adp", "pic", "area")


def ltx_loss(
    explainee: Explainee,
    explainer: Explainer,
    goal: Goal,
    params: Leaves,
    model_state: Any,
    batch: Mapping[str, Array],
    rng: Array,
) -> tuple[Array, tuple[dict[str, Array], Any]]:
    """The objective of the explainer's masks, for `train_step`.

    Args:
      explainee: the frozen classifier.
      explainer: gives the network and its frozen leaves.
      goal: the objective.
      params: the explainer's trained leaves.
      model_state: given back as it is: batch norms of an explainer stay what they are.
      batch: `images` [n,H,W,C], uint8 or in [0,1], and `targets` [n], the classes to keep; negative
        for the one that the explainee predicts.
      rng: of the budgets and fills that are drawn.

    Returns:
      The mean total over the batch; and as metrics that and the mean of each unweighted term.
    """
    images, targets = as_input(batch["images"]), batch["targets"]
    predicted = explainee(images).argmax(-1).astype(targets.dtype)
    targets = jnp.where(targets < 0, predicted, targets)
    raw = explainer.draw(params, explainer.prefix(images))[:, 0]
    masks = activate(raw, explainer.activation)
    chance = goal.chance(jax.random.split(rng, len(images)))
    total, terms = losses(goal.weights, explainee, images, masks, targets, raw, chance)
    means = {name: of_images.mean() for name, of_images in {"total": total, **terms}.items()}
    return means["total"], (means, model_state)


class Validated(NamedTuple):
    """What an explainer's masks are worth on n images, for the class that is predicted.

    Attributes:
      scores: the usual six and the mean of the mask (`area`), by name, [n] each.
      masks: token masks [n,g,h] in [0,1].
    """

    scores: dict[str, Any]
    masks: Any


@partial(jax.jit, static_argnames=("mesh", "chunk"))
def validate(
    explainee: Explainee,
    explainer: Explainer,
    trained: Leaves,
    images: Array | np.ndarray,
    mesh: Mesh,
    chunk: int | None,
) -> Validated:
    """Score an explainer's masks.

    Args:
      explainee: the classifier.
      explainer: gives the network and its frozen leaves.
      trained: its trained leaves.
      images: [n,H,W,C], uint8 or in [0,1], n a multiple of the number of devices.
      mesh: the devices.
      chunk: most images in one forward of the explainee.
    """

    def of_share(explainee: Explainee, explainer: Explainer, trained: Leaves, x: Array) -> Any:
        x = as_input(x)
        logits, masks = explainee(x), explainer.masks(trained, x)
        pixels = upsample(masks, x.shape[1:3])
        classes = logits.argmax(-1)[:, None].astype(jnp.int32)
        case = Case(explainee, x, logits, classes, pixels, pixels, pixels, chunk=chunk)
        return Validated({name: SCORES[name].values(case)[:, 0] for name in _SCORES}, masks)

    specs = (REPLICATED, REPLICATED, REPLICATED, SPLIT)
    return on_each_device(of_share, mesh, specs, SPLIT)(explainee, explainer, trained, images)
