"""A small network of every family with lively weights."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ltx_jax.models.architecture import Architecture
from ltx_jax.models.registry import architecture

FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 16, "patch_size": 4, "width": 16, "depth": 3, "num_heads": 2},
    "resnet50": {"depths": (1, 1, 1, 1)},
    "cifar_resnet20": {"depth": 8},
    "densenet121": {"block_config": (2, 2), "growth_rate": 8, "num_init_features": 16},
    "squeezenet1_1": {},
    "mobilenetv2_100": {},
}
CNNS = [name for name in FAMILIES if name != "vit"]
_SIDES = {"vit": 16, "cifar_resnet20": 16, "densenet121": 32}


class Small(NamedTuple):
    """A network of four classes, its variables, and two images in [0,1] for it."""

    network: Architecture
    variables: dict[str, Any]
    images: Array


@cache
def small(name: str, **sizes: Any) -> Small:
    """The family's network, with `sizes` beside those of `FAMILIES`."""
    network = architecture(name, num_classes=4, **FAMILIES[name], **sizes)
    side = _SIDES.get(name, 64)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((2, side, side, 3), np.float32))
    gain = 2 if name == "squeezenet1_1" else 1  # which has no norms
    shapes = jax.eval_shape(network.module.init, jax.random.key(0), images)

    def lively(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Array:
        last = path[-1].key
        if last in ("var", "scale"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif last == "kernel":
            values = rng.normal(0, (gain / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
            if "blocks" in {key.key for key in path}:
                values *= leaf.shape[0] ** 0.5  # of the stack, which is no input
        else:
            values = rng.normal(0, 0.2, leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return Small(network, jax.tree_util.tree_map_with_path(lively, shapes), images)
