"""The network being explained: a frozen function from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float


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
      features: (params, images) to ([n,g,h,c] activations, function from those to logits), for
        attribution methods that need the inside; None where the network does not offer it.
      class_names: one a class, or empty.
    """

    apply: Callable[[Any, Array], Array] = struct.field(pytree_node=False)
    params: Any
    image_size: tuple[int, int] = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False, default="custom")
    class_names: tuple[str, ...] = struct.field(pytree_node=False, default=())

    def __call__(self, images: Float[Array, "n H W 3"]) -> Float[Array, "n classes"]:
        """Logits in float32, whatever the network computes in."""
        return self.apply(self.params, images).astype(jnp.float32)


def in_chunks(
    function: Callable[[Any], Any], items: Any, chunk: int | None
) -> Any:
    """Apply a batched function to at most `chunk` leading items at a time.

    Bounds memory on an accelerator and keeps activations in cache on a CPU.

    Args:
      function: pytree of [n,...] to pytree of [n,...].
      items: pytree whose leaves share their leading axis n.
      chunk: None for all at once. The largest divisor of n that is not above it is used, so that
        one program serves every chunk.
    """
    n = jax.tree.leaves(items)[0].shape[0]
    size = next(c for c in range(min(chunk or n, n), 0, -1) if n % c == 0) if n else n
    if size == n:
        return function(items)
    split = jax.tree.map(lambda x: x.reshape(n // size, size, *x.shape[1:]), items)
    joined = jax.lax.map(function, split)
    return jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), joined)
