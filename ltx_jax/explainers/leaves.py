"""Weights by their paths: easy to split into those that are trained and those that are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from ltx_jax.models.layers import STATISTICS
from ltx_jax.weights.state_dict import Leaves, flatten, unflatten


class Moments(NamedTuple):
    """Adam's running means of the gradient and of its square, by leaf."""

    first: Leaves
    second: Leaves


class Part(NamedTuple):
    """What of an explainer is trained beside its mask head.

    Attributes:
      backbone: whether anything of the backbone is.
      updates: whether that is only an update of low rank beside its weights (LoRA).
    """

    backbone: bool
    updates: bool = False


TRAINED = {"all": Part(True), "head": Part(False), "lora": Part(True, updates=True)}

_BACKBONE = "params/backbone/"
# Never trained: the embeddings of a ViT, its frozen blocks, and the statistics of batch norms.
_FROZEN = (
    f"{STATISTICS}/",
    *(
        f"{_BACKBONE}{name}"
        for name in (
            *("cls_token", "dist_token", "reg_token", "pos_embed"),
            *("patch_embed/", "frozen_blocks/"),
        )
    ),
)
_SCANNED = "/blocks/"
_UPDATE = "/lora_"


def split(variables: Mapping[str, Any], trained: str = "all") -> tuple[Leaves, Leaves]:
    """Variables of a mask network as (trained, frozen) leaves; `trained` is a key of `TRAINED`."""
    part = TRAINED[trained]

    def is_trained(path: str) -> bool:
        if path.startswith(_FROZEN):
            return False
        if not path.startswith(_BACKBONE):
            return True
        return part.backbone and (not part.updates or _UPDATE in path)

    leaves = {path: jnp.asarray(leaf) for path, leaf in flatten(variables).items()}
    changing = {path: leaf for path, leaf in leaves.items() if is_trained(path)}
    return changing, {path: leaf for path, leaf in leaves.items() if path not in changing}


def join(*parts: Leaves) -> dict[str, Any]:
    """Leaves as nested variables."""
    return unflatten({path: leaf for part in parts for path, leaf in part.items()})


def slot_axis(path: str) -> int:
    """Where a leaf has its slot axis when every image has its own copy.

    Scanned blocks are stacked along axis 0 and `scan` slices them there, so their slots come
    second: any other place would cost a transposition in every step.
    """
    return int(_SCANNED in path)
