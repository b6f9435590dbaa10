"""AlexNet (Krizhevsky 2014, one weird trick), as torchvision builds it."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.models.backbone import Backbone, ConvolutionalNetwork
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.layers import Added, Intermediates, activate, max_pool, tap
from ltx_jax.models.vgg import adaptive_mean, flattened

# torchvision's place in `features` of each convolution: channels, kernel, stride, padding, and
# whether a pool comes after it.
_CONVOLUTIONS = {
    0: (64, 11, 4, 2, True),
    3: (192, 5, 1, 2, True),
    6: (384, 3, 1, 1, False),
    8: (256, 3, 1, 1, False),
    10: (256, 3, 1, 1, True),
}
# Cells a side of what the classifier reads.
_READ = 6


class AlexNet(ConvolutionalNetwork, kw_only=True):
    """Five convolutions, three of them with a pool after, and a classifier of three layers.

    Attributes:
      hidden: width of the classifier's first two layers.
      dropped: share of what each of these reads that is dropped in training.
      training: whether it is, by the rng `dropout`.
    """

    hidden: int = 4096
    dropped: float = 0.5
    training: bool = False
    smallest: ClassVar[int] = 63

    def in_training(self) -> Backbone:
        """With dropout in its classifier."""
        return self.clone(training=True)

    @property
    def places(self) -> tuple[int, ...]:
        """torchvision's place in `features` of each convolution."""
        return tuple(_CONVOLUTIONS)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Normalised images to (logits, intermediates `block1` … `block5`, `features`)."""
        x, out = images, Intermediates()
        for block, (place, sizes) in enumerate(_CONVOLUTIONS.items(), 1):
            channels, kernel, stride, padding, pooled = sizes
            convolution = Convolution(
                channels,
                (kernel, kernel),
                (stride, stride),
                ((padding, padding), (padding, padding)),
                dtype=self.dtype,
                as_products=self.as_products,
                name=f"features_{place}",
            )
            x = activate(convolution(x), self.backward)
            if pooled:
                x = max_pool(x, 3, 2, "VALID")
            x = tap(out, f"block{block}", x, added)
        x = tap(out, "features", x, added)
        read = flattened(adaptive_mean(x, _READ))
        if self.num_classes:
            for name in ("fc1", "fc2"):
                read = nn.Dropout(self.dropped, deterministic=not self.training)(read)
                layer = nn.Dense(self.hidden, dtype=self.dtype, name=name)
                read = activate(layer(read), self.backward)
        return self.classified(read.astype(jnp.float32), "classifier"), out
