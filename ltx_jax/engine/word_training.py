"""Training of a word network: the loss of a batch for `engine.training`, and what it is worth on
images held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from ltx_jax.data.concept_targets import LABELS, MASKS
from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device
from ltx_jax.explainers.filter_words import pooled
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.explainers.word_explainer import WordExplainer
from ltx_jax.explainers.word_network import cosines
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import as_input
from ltx_jax.objectives.word_ranking import word_ranking_loss

# How many of the nearest words are asked whether they are an object's.
_NEAREST = 5


@partial(jax.tree_util.register_dataclass, data_fields=["vectors"], meta_fields=["margin"])
@dataclass(frozen=True, eq=False)
class WordGoal:
    """What points should be near to.

    Attributes:
      vectors: of the supervised concepts, [concepts,width].
      margin: see `word_ranking_loss`.
    """

    vectors: Any
    margin: float


def word_loss(
    explainee: Explainee,
    explainer: WordExplainer,
    goal: WordGoal,
    params: Leaves,
    model_state: Leaves,
    batch: Mapping[str, Any],
    rng: Array,
) -> tuple[Array, tuple[dict[str, Array], Leaves]]:
    """The ranking loss of objects' words, for `train_step`.

    Args:
      explainee: the frozen CNN, in evaluation mode.
      explainer: gives the network and its layer.
      goal: the words.
      params: the network's trained leaves.
      model_state: the statistics of its batch norms.
      batch: `images` [n,H,W,C], uint8 or in [0,1], and `targets`: of an object of each, `masks`
        bool [n,g,h] on the features' grid and `labels` bool [n,concepts].
      rng: of what is dropped.

    Source: LaViSE, Yang et al., CVPR 2022 (arXiv 2204.04601); the original's `train_explainer.py`.
    """
    targets = batch["targets"]
    features = explainer.features(explainee, as_input(batch["images"]))
    points, moved = explainer.points_in_training(
        params, model_state, pooled(features, targets[MASKS]), rng
    )
    total = word_ranking_loss(cosines(points, goal.vectors), targets[LABELS], goal.margin)
    return total, ({"total": total}, moved)


@partial(jax.jit, static_argnames="mesh")
def validate_words(
    explainee: Explainee,
    explainer: WordExplainer,
    goal: WordGoal,
    images: Any,
    targets: Any,
    mesh: Mesh,
) -> dict[str, Array]:
    """Judge a word network, in evaluation mode.

    Args:
      explainee, explainer, goal: see `word_loss`; the explainer with its leaves.
      images: [n,H,W,C], uint8 or in [0,1], n a multiple of the number of devices.
      targets: of a batch.
      mesh: the devices.

    Returns:
      Of each object, [n]: its `loss`, and `recall_5`, percent of its words that are among the five
      nearest.
    """

    def of_share(
        explainee: Explainee, explainer: WordExplainer, goal: WordGoal, images: Array, targets: Any
    ) -> dict[str, Array]:
        features = explainer.features(explainee, as_input(images))
        points = explainer.points(pooled(features, targets[MASKS]))
        near, labels = cosines(points, goal.vectors), targets[LABELS]
        losses = jax.vmap(
            lambda near, labels: word_ranking_loss(near[None], labels[None], goal.margin)
        )(near, labels)
        _, first = jax.lax.top_k(near, min(_NEAREST, near.shape[1]))
        found = jnp.take_along_axis(labels, first, axis=1).sum(1, dtype=jnp.float32)
        count = jnp.maximum(labels.sum(1, dtype=jnp.float32), 1)
        return {"loss": losses, "recall_5": 100 * found / count}

    specs = (REPLICATED, REPLICATED, REPLICATED, SPLIT, SPLIT)
    given = explainee, explainer, goal, images, targets
    return on_each_device(of_share, mesh, specs, SPLIT)(*given)
