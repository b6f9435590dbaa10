"""The network that draws masks: a backbone without its classifier, and a mask head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.explainers.drawer import Beginning
from ltx_jax.explainers.heads import MaskHead
from ltx_jax.explainers.leaves import TRAINED, Leaves, join, slot_axis, split
from ltx_jax.masks.guided_filter import guided_filter
from ltx_jax.masks.tokens import activate, upsample
from ltx_jax.models.architecture import Architecture
from ltx_jax.models.backbone import Backbone
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import STATISTICS, normalised, precision, statistics_of
from ltx_jax.weights.state_dict import Entry, Variables, flatten, under

# Where a sigmoid is 0 or 1 but for 1.2e-4.
_SURE = 9.0


class MaskNetwork(nn.Module):
    """Normalised images to raw mask values.

    Attributes:
      backbone: a network without classes.
      head: a mask head on its features.
      trained: what of the two is trained, a key of `TRAINED`; its `prefix` is what comes before.
    """

    backbone: Backbone
    head: MaskHead
    trained: str = "all"

    def __call__(self, images: Float[Array, "n H W C"]) -> Float[Array, "n classes g h"]:
        """Raw values of images."""
        return self.draw(self.prefix(images))

    def prefix(self, images: Float[Array, "n H W C"]) -> Float[Array, "n ..."]:
        """What comes of images before any leaf that is trained."""
        if TRAINED[self.trained].backbone:
            return self.backbone.prefix(images)
        return self._features(images)

    def draw(self, prefix: Float[Array, "n ..."]) -> Float[Array, "n classes g h"]:
        """Raw values from the prefix of images."""
        return self.head(self._features(prefix) if TRAINED[self.trained].backbone else prefix)

    def in_training(self) -> MaskNetwork:
        """The same network as it is while it is trained for a data set."""
        backbone = self.backbone
        if TRAINED[self.trained].backbone:
            backbone = backbone.in_training()
        return self.clone(backbone=backbone, head=self.head.in_training())

    def _features(self, images: Float[Array, "n ..."]) -> Float[Array, "n g h c"]:
        return self.backbone(images)[1]["features"]


@struct.dataclass(eq=False)
class Explainer:
    """A mask network with its weights: those that are trained, and those that are not.

    A `Drawer`, and a pytree; what is not an array of two of the same kind is equal.

    Attributes:
      module: the network.
      trained: leaves by path that an optimizer changes.
      frozen: the other leaves by path.
      activation: from raw values to mask values; see `masks.tokens.activate`.
      architecture: of the backbone; says how images are normalised.
      edge_radius: of the filter, in pixels, by which raw values follow an image's edges (see
        `at_pixels`); 0 for none.
    """

    module: MaskNetwork = struct.field(pytree_node=False)
    trained: Leaves
    frozen: Leaves
    activation: str = struct.field(pytree_node=False)
    architecture: Architecture = struct.field(pytree_node=False)
    edge_radius: int = struct.field(pytree_node=False, default=0)

    def __repr__(self) -> str:
        grid = "×".join(map(str, self.grid()))
        many = f" of {self.classes} classes" if self.classes > 1 else ""
        edges = f", edges within {self.edge_radius} pixels" * bool(self.edge_radius)
        told = f"masks {grid}{many}{edges}, trained {self.module.trained}"
        return f"Explainer({self.architecture.name}, {told})"

    @property
    def classes(self) -> int:
        """That have a mask each; 1 where there is one mask whatever the class."""
        return self.module.head.classes

    def masks(
        self, trained: Leaves, images: Float[Array | np.ndarray, "n H W C"]
    ) -> Float[Array, "n g h"]:
        """Token masks of images in [0,1], with these trained leaves instead of its own."""
        return activate(self.draw(trained, self.prefix(images))[:, 0], self.activation)

    def begin(
        self,
        explainee: Explainee,
        image: Float[Array | np.ndarray, "H W C"],
        target: Int[Array, ""],
    ) -> Beginning:
        """Every image starts from the explainer's own leaves."""
        return Beginning(self.trained, self.prefix(image[None])[0])

    def prefix(self, images: Float[Array | np.ndarray, "n H W C"]) -> Float[Array, "n ..."]:
        """What comes of images in [0,1] before any trained leaf; `draw` goes on from there."""
        how, module = self.architecture.preprocessing, self.module
        with precision(module.backbone.dtype):
            inputs = normalised(images, how.mean, how.std)
            prefix: Any = module.apply(join(self.frozen), inputs, method="prefix")
        return prefix

    def draw(self, leaves: Leaves, prefix: Float[Array, "n ..."]) -> Float[Array, "n classes g h"]:
        """Raw values from the `prefix` of images, with these trained leaves."""
        with precision(self.module.backbone.dtype):
            raw: Any = self.module.apply(join(leaves, self.frozen), prefix, method="draw")
        return raw

    def at_pixels(
        self, raw: Float[Array, "n classes g h"], prefix: Float[Array, "n ..."]
    ) -> Float[Array, "n classes H W"]:
        """Raw values at the images' size: brought there bilinearly, and where there is an
        `edge_radius` filtered by the image itself, which is what the `prefix` is then.

        What is filtered is at most 9 in magnitude, where a sigmoid is 0 or 1 but for 1e-4: edges
        are fitted to where a class is, not to how sure of it the network is.
        """
        if not self.edge_radius:
            return upsample(raw, self.architecture.size)
        limited = jnp.clip(raw, -_SURE, _SURE)
        pixels = upsample(limited, self.architecture.size)
        return guided_filter(pixels, prefix, self.edge_radius)

    def at_cells(
        self, raw: Float[Array, "n classes g h"], prefix: Float[Array, "n ..."]
    ) -> Float[Array, "n classes g h"]:
        """The same on the grid of the raw values, for whoever wants few numbers."""
        if not self.edge_radius:
            return raw
        return jax.image.resize(self.at_pixels(raw, prefix), raw.shape, "linear", antialias=True)

    def draw_in_training(
        self,
        trained: Leaves,
        statistics: Leaves,
        images: Float[Array | np.ndarray, "n H W C"],
        rng: Array,
    ) -> tuple[Float[Array, "n classes g h"], Leaves]:
        """Raw values of images in [0,1] as the network is while it is trained for a data set.

        Args:
          trained: leaves instead of its own.
          statistics: of its batch norms, instead of its own.
          images: a whole batch, whose means and variances batch norms go by.
          rng: of what is dropped.

        Returns:
          The raw values, and the statistics moved by this batch.
        """
        how, module = self.architecture.preprocessing, self.module.in_training()
        given = join(self.frozen | statistics, trained)
        with precision(self.module.backbone.dtype):
            raw, moved = module.apply(
                given,
                normalised(images, how.mean, how.std),
                mutable=[STATISTICS],
                rngs={"dropout": rng},
            )
        return raw, {path: flatten(moved)[path] for path in statistics}

    @property
    def statistics(self) -> Leaves:
        """Of its batch norms, which a training may move."""
        return statistics_of(self.frozen)

    def with_leaves(self, trained: Leaves, statistics: Leaves) -> Explainer:
        """The same network with these trained leaves and statistics of batch norms."""
        return replace(self, trained=trained, frozen=self.frozen | statistics)

    def slot_axis(self, path: str) -> int:
        """Where a trained leaf has its slot axis when every image has its own copy."""
        return slot_axis(path)

    def grid(self) -> tuple[int, int]:
        """Tokens of its masks along height and width."""
        shape = (1, *self.architecture.size, self.architecture.channels)
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        raw, _ = jax.eval_shape(self.module.init_with_output, jax.random.key(0), image)
        return raw.shape[-2], raw.shape[-1]

    def for_slots(self) -> Explainer:
        """The same network computed in the way that suits weights of each image's own."""
        backbone = self.module.backbone.for_slots()
        return replace(self, module=self.module.clone(backbone=backbone))

    def without_trained(self) -> Explainer:
        """The same without its trained leaves, for whoever gives his own."""
        return replace(self, trained={})

    def table(self) -> list[Entry]:
        """What a checkpoint calls its weights."""
        return weight_table(self.architecture, self.module.head)


def explainer_from(
    module: MaskNetwork,
    architecture: Architecture,
    variables: Variables,
    activation: str,
    edge_radius: int = 0,
) -> Explainer:
    """An explainer of a mask network's variables; `architecture` is the backbone's."""
    trained, frozen = split(variables, module.trained)
    return Explainer(module, trained, frozen, activation, architecture, edge_radius)


def weight_table(architecture: Architecture, head: MaskHead) -> list[Entry]:
    """The weight table of a mask network: its backbone's, and the head's own names."""
    backbone = architecture.table(architecture.module)
    return under("backbone", backbone) + under("head", head.table())
