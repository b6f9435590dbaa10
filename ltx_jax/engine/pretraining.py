"""Pretraining: the loss of a batch for `engine.training`, and the score of an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float

from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.masks.tokens import activate, upsample
from ltx_jax.metrics.perturbation import perturbation_areas
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import Goal, losses


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
      batch: `images` [n,H,W,C] in [0,1], and `targets` [n], the classes to keep; negative for the
        one that the explainee predicts.
      rng: of the budgets and fills that are drawn.

    Returns:
      The mean total over the batch; and as metrics that and the mean of each unweighted term.
    """
    images, targets = batch["images"], batch["targets"]
    predicted = explainee(images).argmax(-1).astype(targets.dtype)
    targets = jnp.where(targets < 0, predicted, targets)
    raw = explainer.draw(params, explainer.prefix(images))[:, 0]
    masks = activate(raw, explainer.activation)
    chance = goal.chance(jax.random.split(rng, len(images)))
    total, terms = losses(goal.weights, explainee, images, masks, targets, raw, chance)
    means = {name: of_images.mean() for name, of_images in {"total": total, **terms}.items()}
    return means["total"], (means, model_state)


def validation_score(
    explainee: Explainee,
    explainer: Explainer,
    trained: Leaves,
    batches: Iterable[np.ndarray],
    size: int,
    mesh: Mesh,
    chunk: int | None = None,
) -> float:
    """Mean POS in percent (predicted class; lower is better) over images.

    Args:
      explainee: the classifier.
      explainer: gives the network and its frozen leaves.
      trained: its trained leaves.
      batches: images [n,H,W,C] in [0,1], n at most `size`.
      size: of a batch, a multiple of the number of devices.
      mesh: the devices.
      chunk: most images in one forward of the explainee.

    Raises:
      InputError: where there is no batch.
    """
    scores = []
    for images in batches:
        missing = size - len(images)
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        scores.append(_pos(explainee, explainer, trained, filled, mesh, chunk)[: len(images)])
    if not scores:
        raise InputError("none of the images held out for validation can be read: give more images")
    return float(np.mean(np.concatenate([np.asarray(score) for score in scores])))


@partial(jax.jit, static_argnames=("mesh", "chunk"))
def _pos(
    explainee: Explainee,
    explainer: Explainer,
    trained: Leaves,
    images: Float[Array | np.ndarray, "n H W C"],
    mesh: Mesh,
    chunk: int | None,
) -> Float[Array, " n"]:
    def of_share(explainee: Explainee, explainer: Explainer, trained: Leaves, x: Array) -> Array:
        logits = explainee(x)
        masks = upsample(explainer.masks(trained, x), x.shape[1:3])
        classes = logits.argmax(-1)[:, None].astype(jnp.int32)
        return perturbation_areas(explainee, x, masks, classes, logits, True, chunk).agreement[:, 0]

    specs = (REPLICATED, REPLICATED, REPLICATED, SPLIT)
    return on_each_device(of_share, mesh, specs, SPLIT)(explainee, explainer, trained, images)
