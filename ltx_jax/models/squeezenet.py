"""SqueezeNet 1.1 (Iandola et al. 2016), as torchvision builds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.backbone import ConvolutionalNetwork
from ltx_jax.models.layers import Added, Convolution, Intermediates, max_pool, tap


class SqueezeNet(ConvolutionalNetwork):
    """A stem and eight fire modules; the classifier is a 1×1 convolution before the mean."""

    # torchvision's place of each fire module in `features` → (squeeze, expand) channels. Pools
    # stand before those of `pooled`.
    fires: ClassVar[Mapping[int, tuple[int, int]]] = {
        3: (16, 64),
        4: (16, 64),
        6: (32, 128),
        7: (32, 128),
        9: (48, 192),
        10: (48, 192),
        11: (64, 256),
        12: (64, 256),
    }
    pooled = (3, 6, 9)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `fire3` … `fire12`, `features`)."""
        x = nn.relu(self._convolution("stem", 64, 3, stride=2)(images))
        out: Intermediates = {}
        x = tap(out, "stem", x, added)
        for place, (squeeze, expand) in self.fires.items():
            if place in self.pooled:
                x = max_pool(x, 3, 2, "VALID", ceil_mode=True)
            x = nn.relu(self._convolution(f"fire{place}_squeeze", squeeze, 1)(x))
            narrow = self._convolution(f"fire{place}_expand1x1", expand, 1)(x)
            wide = self._convolution(f"fire{place}_expand3x3", expand, 3, padding=1)(x)
            x = nn.relu(jnp.concatenate([narrow, wide], axis=-1))
            x = tap(out, f"fire{place}", x, added)
        x = tap(out, "features", x, added)
        if self.num_classes:
            x = nn.relu(self._convolution("classifier", self.num_classes, 1)(x))
        return x.mean((1, 2), dtype=jnp.float32), out

    def _convolution(
        self, name: str, width: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> nn.Module:
        return Convolution(
            width,
            (kernel, kernel),
            (stride, stride),
            ((padding, padding),) * 2,
            dtype=self.dtype,
            as_products=self.as_products,
            name=name,
        )
