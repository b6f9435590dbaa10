"""VGG (Simonyan & Zisserman 2015), as torchvision builds it."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ltx_jax.models.backbone import Backbone, ConvolutionalNetwork
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.layers import Added, Intermediates, activate, max_pool, tap

_CHANNELS = (64, 128, 256, 512, 512)
# Cells a side of what the classifier reads.
_READ = 7


class VGG(ConvolutionalNetwork, kw_only=True):
    """Five groups of 3×3 convolutions, a pool after each, and a classifier of three layers.

    Attributes:
      depths: convolutions of each group.
      hidden: width of the classifier's first two layers.
      dropped: share of what each of these gives that is dropped in training.
      training: whether it is, by the rng `dropout`.
    """

    depths: tuple[int, ...]
    hidden: int = 4096
    dropped: float = 0.5
    training: bool = False
    smallest: ClassVar[int] = 32

    def in_training(self) -> Backbone:
        """With dropout in its classifier."""
        return self.clone(training=True)

    @property
    def places(self) -> list[list[int]]:
        """torchvision's place in `features` of each group's convolutions."""
        # A convolution and its ReLU have two places, a pool one.
        starts = np.cumsum([0, *(2 * depth + 1 for depth in self.depths)])
        return [
            [int(start) + 2 * i for i in range(depth)]
            for start, depth in zip(starts, self.depths, strict=False)
        ]

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `block1` … `block5`, `features`)."""
        x, out = images, Intermediates()
        for group, places in enumerate(self.places):
            for place in places:
                convolution = Convolution(
                    _CHANNELS[group],
                    padding=((1, 1), (1, 1)),
                    dtype=self.dtype,
                    as_products=self.as_products,
                    name=f"features_{place}",
                )
                x = activate(convolution(x), self.backward)
            x = max_pool(x, 2, 2, "VALID")
            x = tap(out, f"block{group + 1}", x, added)
        x = tap(out, "features", x, added)
        read = flattened(adaptive_mean(x, _READ))
        if self.num_classes:
            for name in ("fc1", "fc2"):
                layer = nn.Dense(self.hidden, dtype=self.dtype, name=name)
                read = activate(layer(read), self.backward)
                read = nn.Dropout(self.dropped, deterministic=not self.training)(read)
        return self.classified(read.astype(jnp.float32), "classifier"), out


def flattened(x: Float[Array, "n h w c"]) -> Float[Array, "n chw"]:
    """One row an image, channels first, as PyTorch's layers read it."""
    return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


def adaptive_mean(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n side side c"]:
    """Means over `side` parts of height and width, which share a row or column where they do not
    divide them (PyTorch's adaptive average pooling)."""
    for axis in (1, 2):
        if (length := x.shape[axis]) != side:
            parts = np.arange(side)
            first, end = parts * length // side, -(-(parts + 1) * length // side)
            cells = np.arange(length)
            inside = (cells >= first[:, None]) & (cells < end[:, None])
            shares = jnp.asarray(inside / (end - first)[:, None], x.dtype)
            x = jnp.moveaxis(jnp.tensordot(shares, x, (1, axis)), 0, axis)
    return x
