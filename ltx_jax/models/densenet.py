"""Densely connected networks (Huang et al. 2017), as torchvision builds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from ltx_jax.models.layers import Convolution, Intermediates, batch_norm, exact_dense, max_pool

if TYPE_CHECKING:
    from jaxtyping import Float


class DenseLayer(nn.Module):
    """Norm, 1×1 convolution, norm, 3×3 convolution; its output is added as new channels."""

    growth_rate: int
    bn_size: int
    dtype: Any = jnp.float32
    as_products: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        def convolution(name: str, width: int, kernel: int) -> nn.Module:
            return Convolution(
                width,
                (kernel, kernel),
                padding=((kernel // 2, kernel // 2),) * 2,
                use_bias=False,
                dtype=self.dtype,
                as_products=self.as_products,
                name=name,
            )

        y = nn.relu(batch_norm("norm1", self.dtype)(x))
        y = convolution("conv1", self.bn_size * self.growth_rate, 1)(y)
        y = nn.relu(batch_norm("norm2", self.dtype)(y))
        return jnp.concatenate([x, convolution("conv2", self.growth_rate, 3)(y)], axis=-1)


class DenseNet(nn.Module):
    """A stem and four dense blocks with transitions between them.

    Attributes:
      block_config: layers of each block.
      growth_rate: channels each layer adds.
      num_init_features: of the stem.
      bn_size: width of a layer's 1×1 convolution in growth rates.
      num_classes: 0 for a network without classifier.
      dtype: compute type; the mean over positions and the logits stay float32.
      as_products: see `Convolution`.
    """

    block_config: Sequence[int]
    growth_rate: int = 32
    num_init_features: int = 64
    bn_size: int = 4
    num_classes: int = 1000
    dtype: Any = jnp.float32
    as_products: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "n H W 3"]) -> tuple[Array, Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `block1` … and `features`).

        `features` is the last norm's output before its ReLU, where the original puts its mask
        head.
        """
        x = self._convolution("conv0", self.num_init_features, 7, 2)(images)
        x = max_pool(nn.relu(batch_norm("norm0", self.dtype)(x)), 3, 2, ((1, 1), (1, 1)))
        out: Intermediates = {"stem": x}
        for block, layers in enumerate(self.block_config, 1):
            for i in range(1, layers + 1):
                x = DenseLayer(
                    self.growth_rate,
                    self.bn_size,
                    self.dtype,
                    self.as_products,
                    name=f"block{block}_{i}",
                )(x)
            out[f"block{block}"] = x
            if block < len(self.block_config):
                x = nn.relu(batch_norm(f"transition{block}_norm", self.dtype)(x))
                x = self._convolution(f"transition{block}_conv", x.shape[-1] // 2, 1, 1)(x)
                x = nn.avg_pool(x, (2, 2), (2, 2))
        x = batch_norm("norm5", self.dtype)(x)
        out["features"] = x
        pooled = nn.relu(x).mean((1, 2), dtype=jnp.float32)
        if not self.num_classes:
            return pooled, out
        return exact_dense(self.num_classes, name="classifier")(pooled), out

    def _convolution(self, name: str, width: int, kernel: int, stride: int) -> nn.Module:
        return Convolution(
            width,
            (kernel, kernel),
            (stride, stride),
            ((kernel // 2, kernel // 2),) * 2,
            use_bias=False,
            dtype=self.dtype,
            as_products=self.as_products,
            name=name,
        )
