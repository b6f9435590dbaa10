"""The network that draws masks: a backbone without its classifier, and a mask head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from ltx_jax.explainee import normalised
from ltx_jax.explainers.masks import activate
from ltx_jax.models.layers import exact_dense, precision
from ltx_jax.models.registry import Architecture

if TYPE_CHECKING:
    from jaxtyping import Float

# Leaves by their path, `params/backbone/blocks/fc1/kernel`: easy to split and to put together.
Leaves = dict[str, Array]
# What of an explainer is trained: all but what is never trained, the mask head alone, or the mask
# head and updates of low rank (LoRA).
TRAINED = ("all", "head", "lora")
# Never trained: the embeddings of a ViT, its frozen blocks, and the statistics of batch norms.
_FROZEN = (
    "batch_stats/",
    "params/backbone/cls_token",
    "params/backbone/pos_embed",
    "params/backbone/patch_embed/",
    "params/backbone/frozen_blocks/",
)
_SCANNED = "/blocks/"
_LORA = "/lora_"


class MaskNetwork(nn.Module):
    """Normalised images to token masks.

    Attributes:
      backbone: a network without classes that gives `features` [n,g,h,c].
      mask_head: `tokens` (dense with tanh, then dense to one value; the original's for ViTs) or
        `features` (a 1×1 convolution to one channel; the original's for CNNs).
      activation: see `masks.activate`.
      head_bias: initial bias of the last layer; None for the original's (0, or PyTorch's default
        for a convolution). A positive one starts from a mask that shows most of the image.
      dtype: compute type of the head but for its last layer, which gives values to be ranked.
      trained: one of `TRAINED`.
    """

    backbone: nn.Module
    mask_head: str
    activation: str = "sigmoid"
    head_bias: float | None = None
    dtype: Any = jnp.float32
    trained: str = "all"

    def prefix(self, images: Float[Array | np.ndarray, "n H W 3"]) -> Float[Array, "n ..."]:
        """What comes of images before any leaf that is trained: it needs computing only once."""
        if self.trained == "head":
            return self.backbone(images)[1]["features"]
        # The first layer of a CNN is trained already.
        begun = self.backbone.prefix(images) if hasattr(self.backbone, "prefix") else images
        return jnp.asarray(begun)

    def __call__(self, images: Float[Array | np.ndarray, "n H W 3"]) -> Float[Array, "n g h"]:
        """Token masks of images."""
        return self.draw(self.prefix(images))

    @nn.compact
    def draw(self, prefix: Float[Array, "n ..."]) -> Float[Array, "n g h"]:
        """Token masks from the prefix of images."""
        grid = prefix if self.trained == "head" else self.backbone(prefix)[1]["features"]
        if self.mask_head == "tokens":
            normal = nn.initializers.normal(0.02)
            bias = nn.initializers.constant(self.head_bias or 0.0)
            pooler = nn.Dense(grid.shape[-1], dtype=self.dtype, kernel_init=normal, name="pooler")
            grid = nn.tanh(pooler(grid))
            last = exact_dense(1, kernel_init=normal, bias_init=bias, name="mask")
        else:
            limit = grid.shape[-1] ** -0.5
            uniform = _symmetric_uniform(limit)
            bias = uniform if self.head_bias is None else nn.initializers.constant(self.head_bias)
            last = exact_dense(1, kernel_init=uniform, bias_init=bias, name="mask")
        return activate(last(grid.astype(jnp.float32))[..., 0], self.activation)


def _symmetric_uniform(limit: float) -> nn.initializers.Initializer:
    """PyTorch's default for a convolution: uniform in ±1/√fan-in, weights and bias alike."""

    def initialise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return initialise


@struct.dataclass(eq=False)
class Explainer:
    """A mask network with its weights: those that are trained, and those that are not.

    Attributes:
      module: the network.
      trained: leaves by path that an optimizer changes.
      frozen: the other leaves by path.
      mean, std: of the backbone's normalisation.
      image_size: (H, W) in pixels.
      architecture: of the backbone.
    """

    module: MaskNetwork = struct.field(pytree_node=False)
    trained: Leaves
    frozen: Leaves
    mean: tuple[float, ...] = struct.field(pytree_node=False)
    std: tuple[float, ...] = struct.field(pytree_node=False)
    image_size: tuple[int, int] = struct.field(pytree_node=False)
    architecture: Architecture = struct.field(pytree_node=False)

    def masks(
        self, trained: Leaves, images: Float[Array | np.ndarray, "n H W 3"]
    ) -> Float[Array, "n g h"]:
        """Token masks of images in [0,1], with these trained leaves instead of its own."""
        return self.draw(trained, self.prefix(images))

    def prefix(self, images: Float[Array | np.ndarray, "n H W 3"]) -> Float[Array, "n ..."]:
        """What comes of images in [0,1] before any trained leaf; `draw` goes on from there."""
        with precision(self.module.dtype):
            inputs = normalised(images, self.mean, self.std)
            prefix = self.module.apply(join(self.frozen), inputs, method="prefix")
        return jnp.asarray(prefix)

    def draw(self, trained: Leaves, prefix: Float[Array, "n ..."]) -> Float[Array, "n g h"]:
        """Token masks from the `prefix` of images, with these trained leaves."""
        with precision(self.module.dtype):
            masks = self.module.apply(join(trained, self.frozen), prefix, method="draw")
        return jnp.asarray(masks)

    def for_slots(self) -> Explainer:
        """The same network computed in the way that suits weights of each image's own."""
        if not hasattr(self.module.backbone, "as_products"):
            return self
        backbone = self.module.backbone.clone(as_products=True)
        return replace(self, module=self.module.clone(backbone=backbone))

    def without_trained(self) -> Explainer:
        """The same without its trained leaves, for whoever gives his own."""
        return replace(self, trained={})

    def grid(self) -> tuple[int, int]:
        """Tokens of its masks along height and width."""
        image = jax.ShapeDtypeStruct((1, *self.image_size, 3), jnp.float32)
        masks = jax.eval_shape(self.masks, self.trained, image)
        return masks.shape[1], masks.shape[2]


def slot_axes(leaves: Leaves) -> dict[str, int]:
    """Where each leaf has its slot axis when every image has its own copy.

    Scanned blocks are stacked along axis 0 and `scan` slices them there, so their slots come
    second: any other place would cost a transposition in every step.
    """
    return {path: int(_SCANNED in path) for path in leaves}


def split(variables: Mapping[str, Any], part: str = "all") -> tuple[Leaves, Leaves]:
    """Variables of a `MaskNetwork` as (trained, frozen) leaves by path; `part` is of `TRAINED`."""
    leaves = {"/".join(path): jnp.asarray(leaf) for path, leaf in flatten_dict(variables).items()}

    def is_trained(path: str) -> bool:
        if path.startswith(_FROZEN):
            return False
        in_backbone = path.startswith("params/backbone/")
        return part == "all" or not in_backbone or (part == "lora" and _LORA in path)

    trained = {path: leaf for path, leaf in leaves.items() if is_trained(path)}
    return trained, {path: leaf for path, leaf in leaves.items() if path not in trained}


def join(*parts: Leaves) -> dict[str, Any]:
    """Leaves by path as the nested variables that Flax takes."""
    merged = {tuple(path.split("/")): leaf for part in parts for path, leaf in part.items()}
    return unflatten_dict(merged)
