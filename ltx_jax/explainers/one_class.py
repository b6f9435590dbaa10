"""Of an explainer with a mask for every class, the one that is asked for."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.explainers.drawer import Beginning
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.models.explainee import Explainee

# The last layer's, which have an axis of classes, their last.
_OF_CLASSES = "params/head/mask/"


@struct.dataclass(eq=False)
class OneClass:
    """An explainer whose last layer is cut to the class that is explained, a `Drawer`: so that a
    class's mask is refined on its image as LTX refines the one mask that it has.

    Its raw values are brought to pixels before they are activated, as NN-Explainer does and its
    objective has it; LTX activates those of tokens.

    Attributes:
      every: the explainer, with a mask for each class.
    """

    every: Explainer

    def __repr__(self) -> str:
        return f"OneClass({self.every})"

    @property
    def trained(self) -> Leaves:
        """Those of the explainer, cut to its first class."""
        return self._cut(jnp.int32(0))

    @property
    def activation(self) -> str:
        """The explainer's."""
        return self.every.activation

    def begin(
        self,
        explainee: Explainee,
        image: Float[Array | np.ndarray, "H W C"],
        target: Int[Array, ""],
    ) -> Beginning:
        """Every image starts from the explainer's own leaves, cut to its class."""
        return Beginning(self._cut(target), self.prefix(image[None])[0])

    def prefix(self, images: Float[Array | np.ndarray, "n H W C"]) -> Float[Array, "n ..."]:
        """The explainer's."""
        return self.every.prefix(images)

    def draw(self, leaves: Leaves, prefix: Float[Array, "n ..."]) -> Float[Array, "n 1 H W"]:
        """Raw values of the one class that the leaves are of, at the images' size."""
        module = self.every.module
        alone = module.clone(head=module.head.clone(classes=1))
        raw = replace(self.every, module=alone).draw(leaves, prefix)
        return self.every.at_pixels(raw, prefix)

    def slot_axis(self, path: str) -> int:
        """The explainer's."""
        return self.every.slot_axis(path)

    def grid(self) -> tuple[int, int]:
        """The images' size in pixels."""
        return self.every.architecture.size

    def for_slots(self) -> OneClass:
        """The same, computed in the way that suits weights of each image's own."""
        return replace(self, every=self.every.for_slots())

    def without_trained(self) -> OneClass:
        """The same without its trained leaves, for whoever gives his own."""
        return replace(self, every=self.every.without_trained())

    def _cut(self, target: Int[Array, ""]) -> Leaves:
        return {
            path: jax.lax.dynamic_slice_in_dim(leaf, target, 1, axis=-1)
            if path.startswith(_OF_CLASSES)
            else leaf
            for path, leaf in self.every.trained.items()
        }


def drawer_of(explainer: Explainer) -> Explainer | OneClass:
    """What draws one mask an image: an explainer, or of one for every class that of one class."""
    return OneClass(explainer) if explainer.classes > 1 else explainer
