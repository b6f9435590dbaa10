"""Vision transformers' files: other libraries' names in timm's, and what names and shapes tell.

A *dialect* renames a state dict into timm's names, or returns None where it is not in it.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ltx_jax.weights.state_dict import StateDict

# Channels of each head in every plain ViT, which a file does not tell.
_HEAD = 64


def vit_structure(state: StateDict) -> dict[str, Any]:
    """What the names of a state dict tell of its tokens, norms and biases.

    Attributes of `VisionTransformer`; nothing of a state dict that is none of a ViT.
    """
    if "patch_embed.proj.weight" not in state:
        return {}
    with_class, last = "cls_token" in state, "fc_norm.weight" in state
    positions = _rows(state, "pos_embed")
    return {
        "class_token": with_class,
        "distilled": "dist_token" in state,
        "registers": _rows(state, "reg_token"),
        "average_pool": last or not with_class,
        "norm_pooled": last,
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        # As many as a square grid has: none are left for the tokens before it.
        "prefix_positions": math.isqrt(positions) ** 2 != positions or not positions,
    }


def vit_sizes(state: StateDict) -> dict[str, Any]:
    """What the shapes of a state dict tell of a ViT's sizes.

    Attributes of `VisionTransformer`. Heads have 64 channels, as in every plain ViT: no shape tells
    them. A size whose tensor is missing or of another rank is left out.
    """
    found: dict[str, Any] = {}
    kernel = _shape(state, "patch_embed.proj.weight", 4)
    if kernel:
        found |= {"width": kernel[0], "patch_size": kernel[-1]}
        if side := _side(state, _prefix(state)):
            found["image_size"] = side * kernel[-1]
        if kernel[0] % _HEAD == 0:
            found["num_heads"] = kernel[0] // _HEAD
    if hidden := _shape(state, "blocks.0.mlp.fc1.weight", 2):
        found["mlp_ratio"] = hidden[0] / hidden[1]
    blocks = {int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))}
    if blocks:
        found["depth"] = max(blocks) + 1
    if head := _shape(state, "head.weight", 2):
        found["num_classes"] = head[0]
    return found


def with_positions_of(state: StateDict, module: Any) -> StateDict:
    """The state dict with its position embeddings resampled to a ViT's grid, if it is another.

    Bicubic and antialiased, as timm does it; those of the tokens before the patches are kept.
    Positions of no square grid stay as they are, to be refused as misshapen.
    """
    prefix = sum(module.prefix_tokens().values()) * module.prefix_positions
    side = _side(state, prefix)
    if not side or (side, side) == module.grid:
        return state
    before, grid = np.split(np.asarray(state["pos_embed"], np.float32), [prefix], axis=1)
    width = grid.shape[-1]
    grid = grid.reshape(1, side, side, width)
    resampled = jax.image.resize(grid, (1, *module.grid, width), "bicubic", antialias=True)
    logging.info("position embeddings of %s are resampled to %s", (side, side), module.grid)
    after = np.asarray(resampled).reshape(1, -1, width)
    return {**state, "pos_embed": np.concatenate([before, after], axis=1)}


def _prefix(state: StateDict) -> int:
    """How many tokens before the patches have a position embedding."""
    if not vit_structure(state)["prefix_positions"]:
        return 0
    return sum(_rows(state, name) for name in ("cls_token", "dist_token", "reg_token"))


def _side(state: StateDict, prefix: int) -> int | None:
    """Positions along a side of a square grid, less those of tokens before it."""
    patches = _rows(state, "pos_embed") - prefix
    side = math.isqrt(max(patches, 0))
    return side if side and side**2 == patches else None


def _rows(state: StateDict, name: str) -> int:
    """Tokens of an embedding [1,t,d]; none where it is not there."""
    shape = _shape(state, name, 3)
    return shape[1] if shape else 0


def _shape(state: StateDict, name: str, rank: int) -> tuple[int, ...]:
    """A tensor's shape; empty where it is missing or of another rank."""
    shape = tuple(state[name].shape) if name in state else ()
    return shape if len(shape) == rank else ()


def vit_from_deit3(state: StateDict) -> StateDict | None:
    """DeiT III's own `gamma_1` and `gamma_2` of LayerScale in timm's names."""
    if "blocks.0.gamma_1" not in state:
        return None
    return {re.sub(r"\.gamma_([12])$", r".ls\1.gamma", n): array for n, array in state.items()}


def vit_from_torchvision(state: StateDict) -> StateDict | None:
    """torchvision's `VisionTransformer` in timm's names."""
    if "conv_proj.weight" not in state:
        return None
    return {_replaced(name, _TORCHVISION_NAMES): array for name, array in state.items()}


def _replaced(name: str, pairs: Sequence[tuple[str, str]]) -> str:
    for theirs, ours in pairs:
        name = name.replace(theirs, ours)
    return name


# Files of torchvision's first version have `linear_1` and `linear_2`.
_TORCHVISION_NAMES = (
    ("class_token", "cls_token"),
    ("conv_proj", "patch_embed.proj"),
    ("encoder.pos_embedding", "pos_embed"),
    ("encoder.layers.encoder_layer_", "blocks."),
    ("encoder.ln.", "norm."),
    ("heads.head.", "head."),
    ("ln_1", "norm1"),
    ("ln_2", "norm2"),
    ("self_attention.in_proj_", "attn.qkv."),
    ("self_attention.out_proj", "attn.proj"),
    ("mlp.0.", "mlp.fc1."),
    ("mlp.3.", "mlp.fc2."),
    ("mlp.linear_1.", "mlp.fc1."),
    ("mlp.linear_2.", "mlp.fc2."),
)


def vit_from_transformers(state: StateDict) -> StateDict | None:
    """Hugging Face transformers' `ViTForImageClassification` (or `ViTModel`, or DeiT's) in timm's
    names."""
    if not any("encoder.layer." in name for name in state):
        return None
    state = {re.sub(r"^(vit|deit)\.", "", name): array for name, array in state.items()}
    renamed: dict[str, np.ndarray] = {}
    for name, array in state.items():
        if name.startswith("pooler.") or re.search(r"attention\.(key|value)\.", name):
            continue
        if match := re.match(r"(.*)attention\.attention\.query\.(weight|bias)$", name):
            three = [
                f"{match[1]}attention.attention.{part}.{match[2]}"
                for part in ("query", "key", "value")
            ]
            if not all(one in state and state[one].ndim for one in three):
                continue  # which is told with whatever else is missing
            array = np.concatenate([state[one] for one in three])
            name = f"{match[1]}attn.qkv.{match[2]}"
        name = _replaced(name, _TRANSFORMERS_NAMES)
        renamed[re.sub(r"^classifier\.", "head.", name)] = array
    return renamed


_TRANSFORMERS_NAMES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense", "attn.proj"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("layernorm.", "norm."),
)


def vit_to_transformers(state: StateDict) -> dict[str, np.ndarray]:
    """timm's names, but for the classifier's, in those of transformers' `ViTModel`, of any of its
    tensors."""
    renamed: dict[str, np.ndarray] = {}
    back = [(ours, theirs) for theirs, ours in reversed(_TRANSFORMERS_NAMES)]
    for name, array in state.items():
        if match := re.match(r"(.*)attn\.qkv\.(weight|bias)$", name):
            parts = zip(("query", "key", "value"), np.split(array, 3), strict=True)
            named = {f"{match[1]}attention.attention.{n}.{match[2]}": part for n, part in parts}
        else:
            named = {name: array}
        renamed |= {_replaced(name, back): part for name, part in named.items()}
    return renamed
