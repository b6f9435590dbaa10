"""Mask heads: from a backbone's features to raw mask values."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.layers import exact_dense
from ltx_jax.weights.state_dict import Entry, layer


class MaskHead(nn.Module):
    """From features to a raw value for each position and class; the last layer is called `mask`.

    Attributes:
      classes: that have a mask each; 1 where a mask is of no class of its own.
      head_bias: initial bias of the last layer; None for the original's. A positive one starts
        from a mask that shows most of the image.
      dtype: compute type, but for the last layer, which gives values to be ranked.
    """

    classes: int = 1
    head_bias: float | None = None
    dtype: Any = jnp.float32

    def __call__(self, features: Float[Array, "n g h c"]) -> Float[Array, "n classes g h"]:
        """Raw values, before the activation."""
        raise TypeError(f"{type(self).__name__} does not say how")

    def in_training(self) -> MaskHead:
        """The same head as it is while it is trained for a data set."""
        return self

    def table(self) -> list[Entry]:
        """What a checkpoint calls its weights."""
        raise TypeError(f"{type(self).__name__} does not say how")

    def _values(
        self,
        features: Float[Array, "n g h c"],
        kernel: nn.initializers.Initializer,
        bias: nn.initializers.Initializer,
    ) -> Float[Array, "n classes g h"]:
        """The last layer, with these initialisers unless `head_bias` says otherwise."""
        if self.head_bias is not None:
            bias = nn.initializers.constant(self.head_bias)
        last = exact_dense(self.classes, kernel_init=kernel, bias_init=bias, name="mask")
        return jnp.moveaxis(last(features.astype(jnp.float32)), -1, 1)


class TokenHead(MaskHead):
    """A dense layer with tanh, then one to a single value: the original's for ViTs."""

    @nn.compact
    def __call__(self, features: Float[Array, "n g h c"]) -> Float[Array, "n classes g h"]:
        """See `MaskHead`."""
        normal = nn.initializers.normal(0.02)
        width = features.shape[-1]
        pooler = nn.Dense(width, dtype=self.dtype, kernel_init=normal, name="pooler")
        return self._values(nn.tanh(pooler(features)), normal, nn.initializers.zeros)

    def table(self) -> list[Entry]:
        """The original's names."""
        return layer("pooler", "patch_pooler") + layer("mask", "patch_classifier")


class MapHead(MaskHead):
    """A 1×1 convolution to one channel: the original's for CNNs."""

    @nn.compact
    def __call__(self, features: Float[Array, "n g h c"]) -> Float[Array, "n classes g h"]:
        """See `MaskHead`."""
        uniform = _symmetric_uniform(features.shape[-1] ** -0.5)
        return self._values(features, uniform, uniform)

    def table(self) -> list[Entry]:
        """The original's name."""
        return layer("mask", "bottleneck")


def _symmetric_uniform(limit: float) -> nn.initializers.Initializer:
    """PyTorch's default for a convolution: uniform in ±1/√fan-in, weights and bias alike."""

    def initialise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialise
