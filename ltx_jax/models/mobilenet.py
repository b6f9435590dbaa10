"""MobileNetV2 (Sandler et al. 2018): torchvision's, and Keras' with batch norm folded in."""

from __future__ import annotations

import flax.linen as nn
from jax import Array
from jaxtyping import Float

from ltx_jax.models.backbone import ConvolutionalNetwork
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.layers import (
    Added,
    Intermediates,
    Padding,
    activate,
    batch_norm,
    mean_over_positions,
    tap,
)


class MobileNetV2(ConvolutionalNetwork):
    """Inverted residuals with ReLU6.

    Attributes:
      folded: batch norms are folded into the convolutions, which then have biases.
      same_padding: TensorFlow's "SAME", which pads a strided convolution below and to the right.
    """

    folded: bool = False
    same_padding: bool = False
    # Expansion, channels, repeats, first stride of each group of inverted residuals.
    groups = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `block0` … `block16`, `features`)."""
        x = self._relu6(self._convolve(images, "stem", 32, 3, 2))
        out: Intermediates = {}
        x = tap(out, "stem", x, added)
        number = 0
        for expansion, channels, repeats, first_stride in self.groups:
            for i in range(repeats):
                stride = first_stride if i == 0 else 1
                x = self._inverted_residual(x, f"block{number}", expansion, channels, stride)
                x = tap(out, f"block{number}", x, added)
                number += 1
        x = tap(out, "features", self._relu6(self._convolve(x, "last", 1280, 1)), added)
        pooled = mean_over_positions(x)
        return self.classified(pooled, "classifier"), out

    def _inverted_residual(
        self, x: Array, name: str, expansion: int, channels: int, stride: int
    ) -> Array:
        wide = x.shape[-1] * expansion
        y = self._relu6(self._convolve(x, f"{name}_expand", wide, 1)) if expansion > 1 else x
        y = self._relu6(self._convolve(y, f"{name}_depthwise", wide, 3, stride, groups=wide))
        y = self._convolve(y, f"{name}_project", channels, 1)
        return x + y if stride == 1 and x.shape[-1] == channels else y

    def _relu6(self, x: Array) -> Array:
        return activate(x, self.backward, nn.relu6)

    def _convolve(
        self, x: Array, name: str, width: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> Array:
        padding: Padding = ((kernel // 2, kernel // 2),) * 2
        y = Convolution(
            width,
            (kernel, kernel),
            (stride, stride),
            "SAME" if self.same_padding else padding,
            groups,
            use_bias=self.folded,
            dtype=self.dtype,
            as_products=self.as_products,
            name=name,
        )(x)
        return y if self.folded else batch_norm(f"{name}_bn", self.dtype)(y)
