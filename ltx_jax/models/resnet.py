"""Residual networks (He et al. 2016): ImageNet's as torchvision builds them, and CIFAR's."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.backbone import Backbone, ConvolutionalNetwork
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.layers import (
    Added,
    Intermediates,
    activate,
    batch_norm,
    max_pool,
    mean_over_positions,
    tap,
)


class ResidualBlock(nn.Module):
    """A basic block of two 3×3 convolutions, or a bottleneck of 1×1, 3×3 (strided) and 1×1.

    Attributes:
      features: of the 3×3 convolutions; a bottleneck puts out four times as many.
      stride: of the first 3×3 convolution and the shortcut.
      dilation: of the 3×3 convolutions.
      bottleneck: which of the two.
      padded_shortcut: CIFAR's "option A": the input at every `stride`-th position, zero channels
        added on both sides, instead of a projection.
      backward: see `ConvolutionalNetwork`.
      training: of its batch norms.
    """

    features: int
    stride: int
    bottleneck: bool
    dilation: int = 1
    padded_shortcut: bool = False
    dtype: Any = jnp.float32
    as_products: bool = False
    backward: str = "true"
    training: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n H W c"]) -> Float[Array, "n h w d"]:
        """The sum of the convolutions and the shortcut, after the last ReLU."""
        out = self.features * (4 if self.bottleneck else 1)
        widths = [self.features, self.features, out] if self.bottleneck else [out, out]
        kernels = [1, 3, 1] if self.bottleneck else [3, 3]
        strided = kernels.index(3)
        y = x
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            stride = self.stride if i == strided else 1
            y = self._convolve(y, f"{i + 1}", width, kernel, stride)
            y = activate(y, self.backward) if i < len(widths) - 1 else y
        return activate(y + self._shortcut(x, out), self.backward)

    def _shortcut(self, x: Array, out: int) -> Array:
        if self.stride == 1 and x.shape[-1] == out:
            return x
        if self.padded_shortcut:
            side = (out - x.shape[-1]) // 2
            x = x[:, :: self.stride, :: self.stride]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (side, side)))
        return self._convolve(x, "_shortcut", out, 1, self.stride)

    def _convolve(self, x: Array, name: str, width: int, kernel: int, stride: int) -> Array:
        dilation = self.dilation if kernel == 3 else 1
        convolution = Convolution(
            width,
            (kernel, kernel),
            (stride, stride),
            ((kernel // 2 * dilation,) * 2,) * 2,
            use_bias=False,
            dilation=dilation,
            dtype=self.dtype,
            as_products=self.as_products,
            name=f"conv{name}",
        )
        return batch_norm(f"bn{name}", self.dtype, self.training)(convolution(x))


class ResNet(ConvolutionalNetwork, kw_only=True):
    """A residual network with four stages.

    Attributes:
      depths: blocks of each stage.
      bottleneck: of its blocks.
      dilated: which of the last three stages look further in place of striding (torchvision's
        `replace_stride_with_dilation`).
      training: of its batch norms.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    dilated: tuple[bool, ...] = (False, False, False)
    training: bool = False

    def in_training(self) -> Backbone:
        """With batch norms that go by the batch."""
        return self.clone(training=True)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `layer1` … `layer4`, `features`)."""
        stem = Convolution(
            64,
            (7, 7),
            (2, 2),
            ((3, 3), (3, 3)),
            use_bias=False,
            dtype=self.dtype,
            as_products=self.as_products,
            name="conv1",
        )
        x = batch_norm("bn1", self.dtype, self.training)(stem(images))
        x = max_pool(activate(x, self.backward), 3, 2, ((1, 1), (1, 1)))
        out: Intermediates = {}
        x = tap(out, "stem", x, added)
        dilation = 1
        for stage, depth in enumerate(self.depths):
            dilated = stage > 0 and self.dilated[stage - 1]
            for i in range(depth):
                x = ResidualBlock(
                    64 * 2**stage,
                    2 if stage and not i and not dilated else 1,
                    self.bottleneck,
                    # The first block is still at the pace of the stage before.
                    dilation=dilation,
                    training=self.training,
                    dtype=self.dtype,
                    as_products=self.as_products,
                    backward=self.backward,
                    name=f"layer{stage + 1}_{i}",
                )(x)
                if dilated and not i:
                    dilation *= 2
            x = tap(out, f"layer{stage + 1}", x, added)
        x = tap(out, "features", x, added)
        pooled = mean_over_positions(x)
        return self.classified(pooled, "fc"), out


class CifarResNet(ConvolutionalNetwork):
    """CIFAR's residual networks with parameter-free shortcuts (He et al. 2016, section 4.2).

    Attributes:
      depth: 6·n + 2; n blocks in each of three stages of 16, 32 and 64 channels.
      training: of its batch norms.
    """

    num_classes: int = 10
    depth: int = 20
    training: bool = False

    def in_training(self) -> Backbone:
        """With batch norms that go by the batch."""
        return self.clone(training=True)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `layer1` … `layer3`, `features`)."""
        stem = Convolution(
            16,
            (3, 3),
            padding=((1, 1), (1, 1)),
            use_bias=False,
            dtype=self.dtype,
            as_products=self.as_products,
            name="conv1",
        )
        x = activate(batch_norm("bn1", self.dtype, self.training)(stem(images)), self.backward)
        out: Intermediates = {}
        x = tap(out, "stem", x, added)
        for stage in range(3):
            for i in range((self.depth - 2) // 6):
                x = ResidualBlock(
                    16 * 2**stage,
                    2 if stage and not i else 1,
                    bottleneck=False,
                    padded_shortcut=True,
                    training=self.training,
                    dtype=self.dtype,
                    as_products=self.as_products,
                    backward=self.backward,
                    name=f"layer{stage + 1}_{i}",
                )(x)
            x = tap(out, f"layer{stage + 1}", x, added)
        x = tap(out, "features", x, added)
        pooled = mean_over_positions(x)
        return self.classified(pooled, "linear"), out
