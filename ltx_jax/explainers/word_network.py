"""What maps a CNN's features to a point among word vectors (LaViSE), and how near words are."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.layers import batch_norm, exact_dense
from ltx_jax.weights.state_dict import Entry, layer
from ltx_jax.weights.state_dict import batch_norm as norm_entries


class WordNetwork(nn.Module):
    """Batch norm, dropout and a dense layer, twice, with a ReLU between them; float32 throughout.

    Attributes:
      width: of the word vectors.
      dropped: share of each dense layer's inputs that are dropped in training, by the rng
        `dropout`.
      training: whether they are, and whether batch norms go by the batch and move their statistics,
        which must be mutable then. The original's never leave where they begin.

    Source: LaViSE, Yang et al., CVPR 2022 (arXiv 2204.04601); the original's `setup_explainer`.
    """

    width: int
    dropped: float = 0.1
    training: bool = False

    def in_training(self) -> WordNetwork:
        """With batch norms that go by the batch, and dropout."""
        return self.clone(training=True)

    @nn.compact
    def __call__(self, features: Float[Array, "n c"]) -> Float[Array, "n width"]:
        """Points among word vectors, of features that were pooled over positions."""
        x = self._varied(features, "norm1")
        x = nn.relu(exact_dense(features.shape[-1], name="dense1")(x))
        return exact_dense(self.width, name="dense2")(self._varied(x, "norm2"))

    def _varied(self, x: Float[Array, "n c"], name: str) -> Float[Array, "n c"]:
        x = batch_norm(name, jnp.float32, self.training)(x)
        return nn.Dropout(self.dropped, deterministic=not self.training)(x)

    def table(self) -> list[Entry]:
        """The original's names: the network stands where the CNN's last layer `fc` was."""
        return [
            *norm_entries("norm1", "fc.0"),
            *layer("dense1", "fc.2"),
            *norm_entries("norm2", "fc.4"),
            *layer("dense2", "fc.6"),
        ]


def cosines(
    points: Float[Array, "n width"], vectors: Float[Array, "words width"]
) -> Float[Array, "n words"]:
    """The cosine of each point with each word's vector, in [-1,1]; 0 with a point that is 0."""
    return jnp.matmul(_directions(points), _directions(vectors).T, precision="highest")


def _directions(x: Float[Array, "n width"]) -> Float[Array, "n width"]:
    # Bounded under the root, or a point that is 0 has a gradient that is no number.
    return x / jnp.sqrt(jnp.maximum((x**2).sum(-1, keepdims=True), 1e-16))
