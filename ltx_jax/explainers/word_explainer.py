"""A word network with its leaves and the layer that it reads: what finds words for filters."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.explainers.word_network import WordNetwork
from ltx_jax.models.explainee import Explainee, listed
from ltx_jax.models.layers import STATISTICS, statistics_of
from ltx_jax.weights.state_dict import flatten, unflatten


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["trained", "statistics"],
    meta_fields=["module", "layer"],
)
@dataclass(frozen=True, eq=False)
class WordExplainer:
    """From an explainee's features to points among word vectors.

    Attributes:
      module: the network.
      layer: name of the features that it reads.
      trained: leaves by path that an optimizer changes.
      statistics: leaves of its batch norms.
    """

    module: WordNetwork
    layer: str
    trained: Leaves
    statistics: Leaves

    def features(
        self, explainee: Explainee, images: Float[Array, "n H W C"]
    ) -> Float[Array, "n g h c"]:
        """The layer's features of images in [0,1], in float32."""
        return explainee.intermediates(images)[1][self.layer].astype(jnp.float32)

    def points(self, pooled: Float[Array, "n c"]) -> Float[Array, "n width"]:
        """Of pooled features, in evaluation mode."""
        found: Any = self.module.apply(unflatten(self.trained | self.statistics), pooled)
        return found

    def points_in_training(
        self, trained: Leaves, statistics: Leaves, pooled: Float[Array, "n c"], rng: Array
    ) -> tuple[Float[Array, "n width"], Leaves]:
        """Points as the network is while it is trained, and its statistics moved by the batch."""
        points, moved = self.module.in_training().apply(
            unflatten(trained | statistics), pooled, mutable=[STATISTICS], rngs={"dropout": rng}
        )
        return points, flatten(moved)


def fresh_word_explainer(layer: str, channels: int, width: int, seed: int) -> WordExplainer:
    """One before any training.

    Args:
      layer: name of the features that it reads.
      channels: of these.
      width: of the word vectors.
      seed: of its weights.
    """
    module = WordNetwork(width)
    features = jnp.zeros((2, channels), jnp.float32)
    leaves = flatten(jax.jit(module.init)(jax.random.key(seed), features))
    statistics = statistics_of(leaves)
    trained = {p: x for p, x in leaves.items() if p not in statistics}
    return WordExplainer(module, layer, trained, statistics)


def layer_shape(explainee: Explainee, layer: str) -> tuple[int, int, int]:
    """Rows, columns and channels of an explainee's features, without computing anything.

    Raises:
      InputError: where it has none of that name, or they are no map.
    """
    shape = (1, *explainee.image_shape)
    found = jax.eval_shape(lambda: explainee.intermediates(jnp.zeros(shape, jnp.float32)))
    shapes = found[1]
    if layer not in shapes:
        near = difflib.get_close_matches(layer, shapes, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"{explainee.name} has no layer {layer!r}: {hint}it has {listed(shapes)}")
    shape = shapes[layer].shape
    if len(shape) != 4:
        raise InputError(
            f"{layer} of {explainee.name} is no map of features: choose another of {listed(shapes)}"
        )
    return shape[1:]
