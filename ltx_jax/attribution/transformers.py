"""What the rivals for vision transformers share."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.errors import InputError
from ltx_jax.models.backbone import Features, Logits
from ltx_jax.models.explainee import Explainee, Intermediates
from ltx_jax.models.operations import Operations
from ltx_jax.models.vit import VisionTransformer


def network_of(explainee: Explainee, method: str) -> tuple[Features, VisionTransformer]:
    """The network of an explainee that is a vision transformer of ours, and its module.

    Raises:
      InputError: where it is none; `method` is what needs one.
    """
    features = explainee.features
    if isinstance(features, Features) and isinstance(features.module, VisionTransformer):
        return features, features.module
    raise InputError(
        f"{explainee.name} is no vision transformer by name, which {method} is for: leave this "
        "rival out"
    )


def computing_by(explainee: Explainee, operations: Operations, method: str) -> Explainee:
    """The same function with other derivatives, in float32: relevance is divided by activations,
    of which half precision has too few digits.

    Raises:
      InputError: where the explainee is no vision transformer of ours.
    """
    features, module = network_of(explainee, method)
    module = module.clone(operations=operations, dtype=jnp.float32, attention="xla")
    features = dataclasses.replace(features, module=module)
    return dataclasses.replace(explainee, features=features, apply=Logits(features))


def reading(found: Intermediates) -> Float[Array, " t"]:
    """The share that each token of the last block has in what the classifier reads: the class
    token has all of it, with a distillation token half, and a mean is of all patches."""
    tokens = found["attention"].shape[-1]
    if "pooled" in found:
        patches = _patches(found)
        return jnp.zeros(tokens).at[-patches:].set(1 / patches)
    heads = 1 + ("distillation_token" in found)
    return jnp.zeros(tokens).at[:heads].set(1 / heads)


def rolled_out(
    reading: Float[Array, " t"], mixings: Float[Array, "depth n t t"]
) -> Float[Array, "n t"]:
    """The row that is read of the blocks' mixing matrices' product, the later block on the left.

    Values to be ranked: an accelerator would round its products to fewer bits.
    """
    row = jnp.broadcast_to(reading, (mixings.shape[1], len(reading)))

    def before(row: Array, mixing: Array) -> tuple[Array, None]:
        return jnp.matmul(row[:, None], mixing, precision="highest")[:, 0], None

    return jax.lax.scan(before, row, mixings, reverse=True)[0]


def with_residual(maps: Float[Array, "depth n t t"]) -> Float[Array, "depth n t t"]:
    """Mixing matrices of blocks whose residual connection keeps each token: A + 1."""
    return maps + jnp.eye(maps.shape[-1])[None, None]


def of_patches(tokens: Float[Array, "n t"], found: Intermediates) -> Float[Array, "n g h"]:
    """The values of the patches on their grid; those before them are left out."""
    grid = found["features"].shape[1:3]
    return tokens[:, -_patches(found) :].reshape(-1, *grid)


def _patches(found: Intermediates) -> int:
    _, height, width, _ = found["features"].shape
    return height * width
