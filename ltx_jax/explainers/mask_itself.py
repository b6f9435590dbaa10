"""The mask itself as what is optimised: no network draws it, and no checkpoint is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Beginning
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.explainee import Explainee

# (explainee, images [n,H,W,C], targets [n]) to relevance of any size [n,a,b] and range.
Relevance = Callable[[Explainee, Array, Array], Array]
_RAW = "raw"
# Cells of about so many pixels, and so many of them along the longer side.
_PIXELS, _FEWEST, _MOST = 8, 8, 14
# Height of the centre bias, and greatest raw value of a start by ranks.
_BIAS, _SPREAD = 0.5, 2.0


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["network"],
    meta_fields=["cells", "start", "changed"],
)
@dataclass(frozen=True, eq=False)
class MaskItself:
    """Raw values of each image's own, a `Drawer`.

    Attributes:
      cells: of the mask along height and width.
      start: whose relevance orders the cells to begin with; None for the network's raw values
        where there is one, else for a bias towards the centre.
      network: an explainer whose raw values are the start.
      changed: of a network with a mask for every class, the size (H, W) of what it draws for the
        class explained at pixels, of which the values are a change; None where they are the mask's.
        So edges stay sharp and where they are, while a plateau gets an order.
    """

    cells: tuple[int, int]
    start: Relevance | None = None
    network: Explainer | None = None
    changed: tuple[int, int] | None = None

    activation = "sigmoid"

    @property
    def trained(self) -> Leaves:
        """The raw values, which every image has of its own."""
        return {_RAW: np.zeros(self.cells, np.float32)}

    def begin(
        self,
        explainee: Explainee,
        image: Float[Array | np.ndarray, "H W C"],
        target: Int[Array, ""],
    ) -> Beginning:
        """The start for one image; what is changed, if anything, comes before what is trained."""
        raw = self._start(explainee, jnp.asarray(image)[None], target[None])
        if self.changed is not None:
            return Beginning({_RAW: jnp.zeros(self.cells, jnp.float32)}, raw)
        return Beginning({_RAW: raw}, self.prefix(image[None])[0])

    def _start(
        self, explainee: Explainee, images: Float[Array, "1 H W C"], targets: Int[Array, " 1"]
    ) -> Float[Array, "g h"]:
        if self.start is not None:
            return by_rank(self.start(explainee, images, targets)[0], self.cells)
        if self.network is not None:
            prefix = self.network.prefix(images)
            raw = self.network.draw(self.network.trained, prefix)
            if self.changed is None:
                return raw[0, 0]
            return self.network.at_pixels(raw[:, targets], prefix)[0, 0]
        return centre_bias(self.cells)

    def prefix(self, images: Float[Array | np.ndarray, "n H W C"]) -> Float[Array, "n 0"]:
        """Nothing."""
        return jnp.zeros((len(images), 0), jnp.float32)

    def draw(self, leaves: Leaves, prefix: Float[Array, "n ..."]) -> Float[Array, "n 1 g h"]:
        """The raw values, for each image the same, or what they change plus them."""
        if self.changed is not None:
            return (prefix + upsample(leaves[_RAW][None], self.changed))[:, None]
        return jnp.broadcast_to(leaves[_RAW], (len(prefix), 1, *self.cells))

    def slot_axis(self, path: str) -> int:
        """First."""
        return 0

    def grid(self) -> tuple[int, int]:
        """Cells along height and width; pixels where those of a network are changed."""
        return self.changed or self.cells

    def for_slots(self) -> MaskItself:
        """The same."""
        return self

    def without_trained(self) -> MaskItself:
        """The same without its start."""
        return replace(self, start=None, network=None)


def cells_for(size: tuple[int, int], longer: int | None = None) -> tuple[int, int]:
    """Cells of a mask for images of a size (H, W), about as long as they are wide.

    Args:
      size: in pixels.
      longer: cells along the longer side; of about 8 pixels where not given, from 8 to 14.

    Raises:
      InputError: for more cells than pixels.
    """
    most = max(size)
    if longer is None:
        longer = min(max(round(most / _PIXELS), _FEWEST), _MOST, most)
    if not 1 <= longer <= most:
        raise InputError(
            f"explainer.grid is {longer}: the longer side of an image has {most} pixels, and a "
            "cell is at least one of them"
        )
    height, width = (max(round(longer * side / most), 1) for side in size)
    return height, width


def centre_bias(cells: tuple[int, int]) -> Float[Array, "g h"]:
    """0.5·(1 − r²) with r² = x² + y² on [−1,1]², at the centres of the cells."""
    down, across = (jnp.asarray((2 * np.arange(n) + 1) / n - 1, jnp.float32) for n in cells)
    return _BIAS * (1 - down[:, None] ** 2 - across[None] ** 2)


def by_rank(relevance: Float[Array, "a b"], cells: tuple[int, int]) -> Float[Array, "g h"]:
    """Relevance brought to the cells, as ranks that spread over [−2,2]; ties share their rank."""
    values = jax.image.resize(relevance, cells, "linear", antialias=True).ravel()
    below = (values[None] < values[:, None]).sum(-1, dtype=jnp.float32)
    above = (values[None] > values[:, None]).sum(-1, dtype=jnp.float32)
    return (_SPREAD * (below - above) / max(values.size - 1, 1)).reshape(cells)
