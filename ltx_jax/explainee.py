"""The network being explained: a frozen function from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.models.registry import Architecture

if TYPE_CHECKING:
    from jaxtyping import Float


@struct.dataclass(eq=False)
class Explainee:
    """A frozen classifier, `logits = explainee(images)`.

    Bring your own by giving any jit-able `apply` and its `params`; `load_explainee` makes one
    from a timm name. A pytree: it passes through `jax.jit` with its parameters as arguments.

    Attributes:
      apply: (params, images float32 [n,H,W,3] in [0,1]) to logits [n,classes]; normalisation is
        its own affair.
      params: whatever pytree `apply` takes.
      image_size: (H, W) in pixels.
      num_classes: length of the logits.
      name: for messages and records.
      class_names: one a class, or empty.
      architecture: what `load_explainee` built, None for one of your own; an explainer without
        weights of its own starts from it.
    """

    apply: Callable[[Any, Array], Array] = struct.field(pytree_node=False)
    params: Any
    image_size: tuple[int, int] = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False, default="custom")
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())
    architecture: Architecture | None = struct.field(pytree_node=False, default=None)

    def __call__(self, images: Float[Array | np.ndarray, "n H W 3"]) -> Float[Array, "n classes"]:
        """Logits in float32, whatever the network computes in."""
        return self.apply(self.params, jnp.asarray(images)).astype(jnp.float32)

    def preprocessing(self, resize: str) -> Preprocessing:
        """How a photograph becomes an input.

        Args:
          resize: `squash` (bilinear, aspect ratio not kept: what LTX does) or `crop` (what the
            network's published weights were evaluated with).
        """
        if resize == "crop" and self.architecture is not None:
            return replace(self.architecture.preprocessing, resize=resize)
        return Preprocessing(self.image_size, resize=resize)


def in_chunks(function: Callable[[Any], Any], items: Any, chunk: int | None) -> Any:
    """Apply a batched function to at most `chunk` leading items at a time.

    Bounds memory on an accelerator and keeps activations in cache on a CPU.

    Args:
      function: pytree of [n,...] to pytree of [n,...].
      items: pytree whose leaves share their leading axis n.
      chunk: None for all at once. As few chunks as that allows are made of equal size, the last of
        them filled up with its last item, so that one program serves every chunk.
    """
    n = jax.tree.leaves(items)[0].shape[0]
    chunks = -(-n // (chunk or n))
    if chunks == 1:
        return function(items)
    size = -(-n // chunks)

    def split(x: Array) -> Array:
        missing = chunks * size - n
        filled = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)]) if missing else x
        return filled.reshape(chunks, size, *x.shape[1:])

    joined = jax.lax.map(function, jax.tree.map(split, items))
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:n], joined)


def normalised(
    images: Float[Array | np.ndarray, "n H W 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "n H W 3"]:
    """Images in [0,1] as a network wants them."""
    images = jnp.asarray(images)
    return (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)
