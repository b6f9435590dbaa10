"""SqueezeNet 1.1 (Iandola et al. 2016), as torchvision builds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from ltx_jax.models.layers import Convolution, Intermediates, max_pool

if TYPE_CHECKING:
    from jaxtyping import Float

# torchvision's place of each fire module in `features` → (squeeze, expand) channels. Pools stand
# before those of `_POOLED`.
FIRES = {
    3: (16, 64),
    4: (16, 64),
    6: (32, 128),
    7: (32, 128),
    9: (48, 192),
    10: (48, 192),
    11: (64, 256),
    12: (64, 256),
}
_POOLED = (3, 6, 9)


class SqueezeNet(nn.Module):
    """A stem and eight fire modules; the classifier is a 1×1 convolution before the mean.

    Attributes:
      num_classes: 0 for a network without classifier.
      dtype: compute type; the mean over positions and the logits stay float32.
      as_products: see `Convolution`.
    """

    num_classes: int = 1000
    dtype: Any = jnp.float32
    as_products: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "n H W 3"]) -> tuple[Array, Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `fire3` … `fire12`, `features`)."""
        x = nn.relu(self._convolution("stem", 64, 3, stride=2)(images))
        out: Intermediates = {"stem": x}
        for place, (squeeze, expand) in FIRES.items():
            if place in _POOLED:
                x = max_pool(x, 3, 2, "VALID", ceil_mode=True)
            x = nn.relu(self._convolution(f"fire{place}_squeeze", squeeze, 1)(x))
            narrow = self._convolution(f"fire{place}_expand1x1", expand, 1)(x)
            wide = self._convolution(f"fire{place}_expand3x3", expand, 3, padding=1)(x)
            x = nn.relu(jnp.concatenate([narrow, wide], axis=-1))
            out[f"fire{place}"] = x
        out["features"] = x
        if not self.num_classes:
            return x.mean((1, 2), dtype=jnp.float32), out
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
