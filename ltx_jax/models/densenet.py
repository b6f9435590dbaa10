"""Densely connected networks (Huang et al. 2017), as torchvision builds them."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.backbone import ConvolutionalNetwork
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.layers import (
    Added,
    Intermediates,
    activate,
    avg_pool,
    batch_norm,
    max_pool,
    mean_over_positions,
    tap,
)


class DenseLayer(nn.Module):
    """Norm, 1×1 convolution, norm, 3×3 convolution; its output is added as new channels."""

    growth_rate: int
    bn_size: int
    dtype: Any = jnp.float32
    as_products: bool = False
    backward: str = "true"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        """The input's channels, and `growth_rate` new ones after them."""

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

        y = activate(batch_norm("norm1", self.dtype)(x), self.backward)
        y = convolution("conv1", self.bn_size * self.growth_rate, 1)(y)
        y = activate(batch_norm("norm2", self.dtype)(y), self.backward)
        return jnp.concatenate([x, convolution("conv2", self.growth_rate, 3)(y)], axis=-1)


class DenseNet(ConvolutionalNetwork, kw_only=True):
    """A stem and four dense blocks with transitions between them.

    Attributes:
      block_config: layers of each block.
      growth_rate: channels each layer adds.
      num_init_features: of the stem.
      bn_size: width of a layer's 1×1 convolution in growth rates.
    """

    block_config: tuple[int, ...]
    growth_rate: int = 32
    num_init_features: int = 64
    bn_size: int = 4
    smallest: ClassVar[int] = 31

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `block1` … and `features`).

        `features` is the last norm's output before its ReLU, where the original puts its mask
        head.
        """
        x = self._convolution("conv0", self.num_init_features, 7, 2)(images)
        x = activate(batch_norm("norm0", self.dtype)(x), self.backward)
        x = max_pool(x, 3, 2, ((1, 1), (1, 1)))
        out: Intermediates = {}
        x = tap(out, "stem", x, added)
        for block, layers in enumerate(self.block_config, 1):
            for i in range(1, layers + 1):
                x = DenseLayer(
                    self.growth_rate,
                    self.bn_size,
                    self.dtype,
                    self.as_products,
                    self.backward,
                    name=f"block{block}_{i}",
                )(x)
            x = tap(out, f"block{block}", x, added)
            if block < len(self.block_config):
                x = activate(batch_norm(f"transition{block}_norm", self.dtype)(x), self.backward)
                x = self._convolution(f"transition{block}_conv", x.shape[-1] // 2, 1, 1)(x)
                x = avg_pool(x, 2)
        x = tap(out, "features", batch_norm("norm5", self.dtype)(x), added)
        pooled = mean_over_positions(activate(x, self.backward))
        return self.classified(pooled, "classifier"), out

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
