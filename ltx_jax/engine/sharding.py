"""Local devices side by side: each steps its own share of the slots, without a word to the others.

A process uses its own devices only; several processes share nothing but the list of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "slots"
REPLICATED, SPLIT = PartitionSpec(), PartitionSpec(AXIS)


def slot_mesh(images: int) -> Mesh:
    """The local devices to work on so many images, no more than there are images."""
    return Mesh(np.array(jax.local_devices()[:images]), (AXIS,))


def replicate(values: Any, mesh: Mesh) -> Any:
    """A copy of a pytree on every device."""
    return jax.device_put(values, NamedSharding(mesh, REPLICATED))


def place(values: Any, mesh: Mesh) -> Any:
    """Arrays of the host divided over the devices along their leading axis."""
    return jax.device_put(values, NamedSharding(mesh, SPLIT))


def placed_shape(mesh: Mesh, array: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
    """The shape and type of an array, and where it is to be; the devices need not be here."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, spec))


def to_host(values: Any) -> Any:
    """A copy of a pytree of arrays on the host, whole on every process; all must ask for it."""

    def whole(array: Array) -> np.ndarray:
        if array.is_fully_addressable or array.is_fully_replicated:
            return np.array(array)
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array, tiled=True))

    return jax.tree.map(whole, values)


def on_each_device(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """The function on each device's own share, without communication.

    Args:
      function: of local arrays.
      mesh: the devices.
      in_specs, out_specs: partition specs, as `jax.shard_map` takes them.
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def local_index(index: Array, share: int) -> tuple[Array, Array]:
    """Inside `on_each_device`: whether this device has the element, and where in its share."""
    local = index - jax.lax.axis_index(AXIS) * share
    mine = (local >= 0) & (local < share)
    return mine, jax.numpy.clip(local, 0, share - 1).astype(index.dtype)
