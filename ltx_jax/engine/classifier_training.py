"""Training of a classifier: the loss of a batch for `engine.training`, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.models.classifier import Classifier
from ltx_jax.models.layers import as_input
from ltx_jax.models.links import cross_entropy


def classifier_loss(
    classifier: Classifier,
    params: Leaves,
    model_state: Leaves,
    batch: Mapping[str, Array],
    rng: Array,
) -> tuple[Array, tuple[dict[str, Array], Leaves]]:
    """Cross-entropy with the classes of images, for `train_step`.

    Args:
      classifier: gives the network and its frozen leaves.
      params: its trained leaves.
      model_state: the statistics of its batch norms.
      batch: `images` [n,H,W,C], uint8 or in [0,1], and `targets` bool [n,classes].
      rng: of what is dropped.
    """
    images = as_input(batch["images"])
    logits, model_state = classifier.logits_in_training(params, model_state, images, rng)
    total = cross_entropy(logits, batch["targets"], classifier.single).mean()
    return total, ({"total": total}, model_state)


class Answers(NamedTuple):
    """A classifier's on n images: its logits [n,classes], and the cross-entropy of each [n]."""

    logits: Any
    losses: Any


@partial(jax.jit, static_argnames="mesh")
def answers(
    classifier: Classifier, images: Array | np.ndarray, labels: Array | np.ndarray, mesh: Mesh
) -> Answers:
    """Those for images [n,H,W,C], uint8 or in [0,1], n a multiple of the number of devices."""

    def of_share(classifier: Classifier, images: Array, labels: Array) -> Answers:
        logits = classifier.logits(as_input(images))
        return Answers(logits, cross_entropy(logits, labels, classifier.single))

    specs = (REPLICATED, SPLIT, SPLIT)
    return on_each_device(of_share, mesh, specs, SPLIT)(classifier, images, labels)
