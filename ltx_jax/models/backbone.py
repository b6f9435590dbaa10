"""What every network here can do, as a classifier or below a mask head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.errors import InputError
from ltx_jax.models.layers import (
    BACKWARD,
    Added,
    Intermediates,
    exact_dense,
    normalised,
    plus,
    precision,
    with_biases,
)


class Backbone(nn.Module):
    """A network from normalised images to logits and named intermediates.

    A family says what it can do by what it overrides; nobody asks what attributes it has.

    Attributes:
      num_classes: 0 for a network without classifier, whose logits are what one would read.
      dtype: compute type of the products; parameters, what a classifier reads and logits stay
        float32.
      feature_kind: what `features` are, `tokens` or a `map`: it decides the mask head.
      smallest: side in pixels of the smallest images of which any features are left.
      signed_logits: whether a logit may be below 0, and so say that a class is not there.
    """

    num_classes: int = 1000
    dtype: Any = jnp.float32
    feature_kind: ClassVar[str]
    smallest: ClassVar[int] = 1
    signed_logits: ClassVar[bool] = True

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

    def in_training(self) -> Backbone:
        """The same network as it is while it is trained: batch norms that go by the batch, and
        dropout (the rng `dropout`), where it has them; else batch norms stay frozen."""
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

    def trained_part(self) -> dict[str, int | None]:
        """What `with_trained` made it for, by setting; nothing where there are no such parts."""
        return {}

    def with_attention(self, name: str, kernel: str) -> Backbone:
        """The network with that way to compute its attention, `xla` or `cudnn`.

        Raises:
          InputError: where it cannot; `name` is the network's, for the message.
        """
        if kernel != "xla":
            raise InputError(f"{name} is no ViT: leave attention at xla")
        return self

    def with_backward(self, name: str, backward: str) -> Backbone:
        """The network with another rule for gradients on their way back; its values are the same.

        Args:
          name: of the network, for messages.
          backward: of the rule.

        Raises:
          InputError: where it has none of that name.
        """
        if backward != "true":
            raise InputError(
                f"{name} has no backward rule {backward!r}: choose a method that needs none, or a "
                "network that has it"
            )
        return self

    def answer(
        self, variables: Mapping[str, Any], inputs: Float[Array, "n ..."], added: Added
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """The network with these variables as a function; see `__call__`."""
        found: Any = self.apply(variables, inputs, added)
        return found

    def classified(self, read: Float[Array, "n c"], name: str) -> Float[Array, "n classes"]:
        """Logits by a last layer of that name; without classes, what it would read."""
        return exact_dense(self.num_classes, name=name)(read) if self.num_classes else read


class ConvolutionalNetwork(Backbone):
    """A network of convolutions; its `features` are a map.

    Attributes:
      as_products: see `Convolution`.
      backward: how gradients go back through its activations, one of `layers.BACKWARD`.
    """

    as_products: bool = False
    backward: str = "true"
    feature_kind: ClassVar[str] = "map"

    def for_slots(self) -> Backbone:
        """With its convolutions as matrix products."""
        return self.clone(as_products=True)

    def with_backward(self, name: str, backward: str) -> Backbone:
        """With that rule for its activations."""
        if backward not in BACKWARD:
            return super().with_backward(name, backward)
        return self.clone(backward=backward)

    def answer(
        self, variables: Mapping[str, Any], inputs: Float[Array, "n ..."], added: Added
    ) -> tuple[Float[Array, "n classes"], Intermediates]:
        """With what each layer's bias adds among the intermediates, where `added` is given."""
        if added is None:
            return super().answer(variables, inputs, added)
        return with_biases(self, variables, inputs, added)


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
        """See `Backbone`; the images as the network wants them are an intermediate, `input`."""
        with precision(self.module.dtype):
            inputs = plus(normalised(images, self.mean, self.std), added, "input")
            logits, found = self.module.answer(params, inputs, added)
        return logits, {"input": inputs, **found}

    def with_backward(self, name: str, backward: str) -> Features:
        """See `Backbone`."""
        return replace(self, module=self.module.with_backward(name, backward))


@dataclass(frozen=True)
class Logits:
    """The same as a function to logits alone."""

    features: Features

    def __call__(
        self, params: Mapping[str, Any], images: Float[Array, "n H W C"]
    ) -> Float[Array, "n classes"]:
        """See `Backbone`."""
        return self.features(params, images)[0]
