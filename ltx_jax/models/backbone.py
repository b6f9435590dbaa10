"""What every network here can do, as a classifier or below a mask head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.errors import InputError
from ltx_jax.models.layers import Added, Intermediates, exact_dense, normalised, precision


class Backbone(nn.Module):
    """A network from normalised images to logits and named intermediates.

    A family says what it can do by what it overrides; nobody asks what attributes it has.

    Attributes:
      num_classes: 0 for a network without classifier, whose logits are what one would read.
      dtype: compute type of the products; parameters, what a classifier reads and logits stay
        float32.
      feature_kind: what `features` are, `tokens` or a `map`: it decides the mask head.
    """

    num_classes: int = 1000
    dtype: Any = jnp.float32
    feature_kind: ClassVar[str]

    def __call__(
        self, images: Float[Array, "n ..."], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """Logits, and named intermediates with `features` [n,g,h,c] among them.

        Args:
          images: normalised, [n,H,W,C]; or the `prefix` of some, from which the network goes on.
          added: what is added to intermediates on their way, by name. Where it is given, if only
            an empty mapping, those that cost something (attention maps) are computed as well.
        """
        raise TypeError(f"{type(self).__name__} does not say how")

    def prefix(self, images: Float[Array, "n H W C"]) -> Float[Array, "n ..."]:
        """What comes of normalised images before any weight that can be trained."""
        return images

    def for_slots(self) -> Backbone:
        """The same network computed in the way that suits weights of each image's own."""
        return self

    def with_trained(self, name: str, frozen_blocks: int, lora_rank: int) -> Backbone:
        """The network made for the part of it that is to be trained.

        Args:
          name: of the network, for messages.
          frozen_blocks: how many of the first blocks are not trained.
          lora_rank: of an update beside the weights; 0 for none.

        Raises:
          InputError: where it has no such part.
        """
        if frozen_blocks:
            raise InputError(f"{name} has no blocks to freeze: set frozen_blocks to 0")
        if lora_rank:
            raise InputError(
                f"{name} is no ViT, which LoRA is for: set explainer.trained to all or head"
            )
        return self

    def with_attention(self, name: str, kernel: str) -> Backbone:
        """The network with that way to compute its attention, `xla` or `cudnn`.

        Raises:
          InputError: where it cannot; `name` is the network's, for the message.
        """
        if kernel != "xla":
            raise InputError(f"{name} is no ViT: leave attention at xla")
        return self

    def classified(self, read: Float[Array, "n c"], name: str) -> Float[Array, "n classes"]:
        """Logits by a last layer of that name; without classes, what it would read."""
        return exact_dense(self.num_classes, name=name)(read) if self.num_classes else read


class ConvolutionalNetwork(Backbone):
    """A network of convolutions; its `features` are a map.

    Attributes:
      as_products: see `Convolution`.
    """

    as_products: bool = False
    feature_kind: ClassVar[str] = "map"

    def for_slots(self) -> Backbone:
        """With its convolutions as matrix products."""
        return self.clone(as_products=True)


@dataclass(frozen=True)
class Features:
    """A network as a function, (params, images in [0,1], added) to (logits, intermediates).

    Two of the same network are equal, so that programs compiled for one serve the other.

    Attributes:
      module: the network.
      mean, std: of its input's normalisation, one a channel.
    """

    module: Backbone
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(
        self, params: Mapping[str, Any], images: Float[Array, "n H W C"], added: Added = None
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """See `Backbone`."""
        with precision(self.module.dtype):
            inputs = normalised(images, self.mean, self.std)
            answer: Any = self.module.apply(params, inputs, added)
        return answer


@dataclass(frozen=True)
class Logits:
    """The same as a function to logits alone."""

    features: Features

    def __call__(
        self, params: Mapping[str, Any], images: Float[Array, "n H W C"]
    ) -> Float[Array, "n classes"]:
        """See `Backbone`."""
        return self.features(params, images)[0]
