"""DeepLabv3's head (Chen et al. 2017), as torchvision builds it: a mask for every class."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.explainers.heads import MaskHead
from ltx_jax.models.convolution import Convolution
from ltx_jax.models.layers import batch_norm
from ltx_jax.weights.state_dict import Entry, layer
from ltx_jax.weights.state_dict import batch_norm as norm_entries

# Pixels between the offsets of the three wide convolutions, for features of an eighth of the image.
_RATES = (12, 24, 36)


class DeepLabHead(MaskHead):
    """Features at five scales side by side, then a 3×3 convolution, then the classes.

    Attributes:
      width: channels of each layer.
      dropped: share of the joined features that are dropped in training, by the rng `dropout`.
      training: whether they are, and of its batch norms.
    """

    width: int = 256
    dropped: float = 0.5
    training: bool = False

    def in_training(self) -> MaskHead:
        """With batch norms that go by the batch, and dropout."""
        return self.clone(training=True)

    @nn.compact
    def __call__(self, features: Float[Array, "n g h c"]) -> Float[Array, "n classes g h"]:
        """Raw values, before the activation."""
        scales = [self._layer(features, "scale0", 1)]
        scales += [self._layer(features, f"scale{i}", 3, rate) for i, rate in enumerate(_RATES, 1)]
        mean = features.mean((1, 2), keepdims=True)
        whole = self._layer(mean, "scale4", 1)
        scales.append(jnp.broadcast_to(whole, scales[0].shape))
        x = self._layer(jnp.concatenate(scales, axis=-1), "project", 1)
        x = nn.Dropout(self.dropped, deterministic=not self.training)(x)
        x = self._layer(x, "last", 3)
        return self._values(x, nn.initializers.lecun_normal(), nn.initializers.zeros)

    def _layer(self, x: Array, name: str, kernel: int, dilation: int = 1) -> Array:
        convolution = Convolution(
            self.width,
            (kernel, kernel),
            padding=((kernel // 2 * dilation,) * 2,) * 2,
            use_bias=False,
            dilation=dilation,
            dtype=self.dtype,
            name=name,
        )
        return nn.relu(batch_norm(f"{name}_bn", self.dtype, self.training)(convolution(x)))

    def table(self) -> list[Entry]:
        """torchvision's names."""
        places: dict[str, tuple[str, str]] = {
            f"scale{i}": (f"0.convs.{i}.0", f"0.convs.{i}.1") for i in range(4)
        }
        places |= {"scale4": ("0.convs.4.1", "0.convs.4.2"), "last": ("1", "2")}
        places["project"] = ("0.project.0", "0.project.1")
        entries = layer("mask", "classifier.4")
        for name, (convolution, norm) in places.items():
            entries += layer(name, f"classifier.{convolution}", bias=False)
            entries += norm_entries(f"{name}_bn", f"classifier.{norm}")
        return entries
