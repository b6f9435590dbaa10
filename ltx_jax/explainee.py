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
      chunk: None for all at once. The largest divisor of n that is not above it is used, so that
        one program serves every chunk.
    """
    n = jax.tree.leaves(items)[0].shape[0]
    size = next(c for c in range(min(chunk or n, n), 0, -1) if n % c == 0)
    if size == n:
        return function(items)
    split = jax.tree.map(lambda x: x.reshape(n // size, size, *x.shape[1:]), items)
    joined = jax.lax.map(function, split)
    return jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), joined)


def normalised(
    images: Float[Array | np.ndarray, "n H W 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "n H W 3"]:
    """Images in [0,1] as a network wants them."""
    images = jnp.asarray(images)
    return (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)


def precision(dtype: Any) -> Any:
    """A context in which matrix products keep the accuracy their compute type promises.

    GPUs and TPUs round float32 products to fewer bits unless they are told not to.
    """
    exact = jnp.dtype(dtype) == jnp.float32
    return jax.default_matmul_precision("highest" if exact else "default")
