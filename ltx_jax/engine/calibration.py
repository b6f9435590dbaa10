"""From raw values, whose order was optimised, to a mask whose values can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from ltx_jax.engine.scoring import padded
from ltx_jax.engine.sharding import REPLICATED, SPLIT, on_each_device, place
from ltx_jax.masks.covering import covered, filling
from ltx_jax.masks.soft import soft_masks
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.explainee import Explainee, in_chunks

# Shares of the pixels that are tried, least first.
SHARES = (*np.arange(0.02, 0.2, 0.02).tolist(), *np.arange(0.2, 0.99, 0.05).tolist())


def calibrate(
    explainee: Explainee,
    images: Sequence[np.ndarray],
    raw: Sequence[np.ndarray],
    targets: Sequence[int],
    keep: Float[Array, ""],
    fills: tuple[str, ...],
    batch: int,
    mesh: Mesh,
    chunk: int | None,
) -> Float[np.ndarray, "n a b"]:
    """`calibrated` masks of at most a batch of images, divided over the devices."""
    given = np.stack(images), np.stack(raw), np.asarray(targets, np.int32)
    columns = place(tuple(padded(column, batch) for column in given), mesh)
    masks = _on_devices(explainee, *columns, keep, fills, mesh, chunk)
    return jax.device_get(masks)[: len(images)]


@partial(jax.jit, static_argnames=("fills", "mesh", "chunk"))
def _on_devices(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    raw: Float[Array, "n g h"],
    targets: Int[Array, " n"],
    keep: Float[Array, ""],
    fills: tuple[str, ...],
    mesh: Mesh,
    chunk: int | None,
) -> Float[Array, "n a b"]:
    specs = (REPLICATED, SPLIT, SPLIT, SPLIT, REPLICATED)
    local = partial(calibrated, fills=fills, chunk=chunk)
    return on_each_device(local, mesh, specs, SPLIT)(explainee, images, raw, targets, keep)


def calibrated(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    raw: Float[Array, "n g h"],
    targets: Int[Array, " n"],
    keep: Float[Array, ""],
    fills: tuple[str, ...] = ("black",),
    chunk: int | None = None,
) -> Float[Array, "n a b"]:
    """Of the soft masks that raw values make (`masks.soft`), the smallest through which the class
    keeps so much of its probability, whatever the fill; where none does, the one through which it
    keeps most. The order of the pixels stays what it is.

    Args:
      explainee: the classifier.
      images: in [0,1].
      raw: values of the cells.
      targets: the class of each.
      keep: share of the class's probability on the whole image.
      fills: names; see `masks.covering.filling`.
      chunk: most images in one forward of the explainee.
    """
    of_share = jax.vmap(lambda share: soft_masks(raw, share, images.shape[1:3]))
    masks = of_share(jnp.broadcast_to(jnp.array([SHARES], jnp.float32).T, (len(SHARES), len(raw))))

    # What is made of the images alone is made once, not for each share; None for black.
    others = [filling(images, fill) for fill in dict.fromkeys(fills)]

    def kept(mask: Float[Array, "n a b"]) -> Float[Array, " n"]:
        pixels = upsample(mask, images.shape[1:3])
        seen = [covered(images, pixels, "black" if fill is None else fill) for fill in others]
        through = [explainee.probability(in_chunks(explainee, x, chunk), targets) for x in seen]
        return jnp.stack(through).min(0)

    probability = jax.lax.map(kept, masks)
    whole = explainee.probability(in_chunks(explainee, images, chunk), targets)
    holds = probability >= (keep * whole)[None]
    chosen = jnp.where(holds.any(0), holds.argmax(0), probability.argmax(0))
    return masks[chosen, jnp.arange(len(raw), dtype=chosen.dtype)]
