"""SqueezeNet 1.0 and 1.1 (Iandola et al. 2016), as torchvision builds them."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.backbone import ConvolutionalNetwork
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.layers import Added, Intermediates, activate, max_pool, mean_over_positions, tap

# (squeeze, expand) channels of the fire modules.
_FIRES = tuple((squeeze, 4 * squeeze) for squeeze in (16, 16, 32, 32, 48, 48, 64, 64))


class SqueezeNet(ConvolutionalNetwork):
    """A stem and eight fire modules; the classifier is a 1×1 convolution before the mean.

    Attributes:
      first: channels and kernel size of the first convolution.
      pooled: torchvision's place in `features` of each fire module that a pool stands before.
    """

    first: tuple[int, int] = (64, 3)
    pooled: tuple[int, ...] = (3, 6, 9)
    smallest: ClassVar[int] = 24
    signed_logits: ClassVar[bool] = False

    @property
    def fires(self) -> dict[int, tuple[int, int]]:
        """torchvision's place of each fire module in `features` → (squeeze, expand) channels."""
        # A pool has a place of its own, but for the first, after which they are counted.
        start, *others = self.pooled
        places = [place for place in range(start, start + 10) if place + 1 not in others]
        return {place: _FIRES[i] for i, place in enumerate(places)}

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `stem`, `fire3` … and `features`)."""
        x = self._convolution("stem", *self.first, stride=2)(images)
        x = activate(x, self.backward)
        out: Intermediates = {}
        x = tap(out, "stem", x, added)
        for place, (squeeze, expand) in self.fires.items():
            if place in self.pooled:
                x = max_pool(x, 3, 2, "VALID", ceil_mode=True)
            x = self._convolution(f"fire{place}_squeeze", squeeze, 1)(x)
            x = activate(x, self.backward)
            narrow = self._convolution(f"fire{place}_expand1x1", expand, 1)(x)
            wide = self._convolution(f"fire{place}_expand3x3", expand, 3, padding=1)(x)
            x = activate(jnp.concatenate([narrow, wide], axis=-1), self.backward)
            x = tap(out, f"fire{place}", x, added)
        x = tap(out, "features", x, added)
        if self.num_classes:
            x = self._convolution("classifier", self.num_classes, 1)(x)
            x = activate(x, self.backward)
        return mean_over_positions(x), out

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
