"""What each network family's weights are called: one declarative table a family.

The names are timm's (for ResNet, DenseNet and SqueezeNet they are torchvision's as well). A
*dialect* renames another library's state dict into them, or returns None where it is not in that
dialect.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ltx_jax.weights.state_dict import Entry, StateDict, layer, norm, plain, stack, under

Dialect = Callable[[StateDict], StateDict | None]


def vision_transformer(module: Any) -> list[Entry]:
    """timm's plain ViT; the blocks of a scan are stacked, frozen ones in a stack of their own."""
    block = [
        *norm("norm1", "blocks.{i}.norm1"),
        *layer("attention/qkv", "blocks.{i}.attn.qkv"),
        *layer("attention/proj", "blocks.{i}.attn.proj"),
        *norm("norm2", "blocks.{i}.norm2"),
        *layer("fc1", "blocks.{i}.mlp.fc1"),
        *layer("fc2", "blocks.{i}.mlp.fc2"),
    ]
    frozen = module.frozen_blocks
    entries = [
        *plain("cls_token", "cls_token"),
        *plain("pos_embed", "pos_embed"),
        *layer("patch_embed", "patch_embed.proj"),
        *stack(under("blocks", block), range(frozen, module.depth)),
        *norm("norm", "norm"),
    ]
    if frozen:
        entries += stack(under("frozen_blocks", block), range(frozen))
    if module.num_classes:
        entries += layer("head", "head")
    return entries


def vit_from_transformers(state: StateDict) -> StateDict | None:
    """Hugging Face transformers' `ViTForImageClassification` (or `ViTModel`) in timm's names."""
    if not any("encoder.layer." in name for name in state):
        return None
    renamed: dict[str, np.ndarray] = {}
    for name, array in state.items():
        name = re.sub(r"^vit\.", "", name)
        if name.startswith("pooler.") or re.search(r"attention\.(key|value)\.", name):
            continue
        if match := re.match(r"(.*)attention\.attention\.query\.(weight|bias)$", name):
            prefix = "vit." if f"vit.{name}" in state else ""
            parts = [
                state[f"{prefix}{match[1]}attention.attention.{part}.{match[2]}"]
                for part in ("query", "key", "value")
            ]
            array = np.concatenate(parts)
            name = f"{match[1]}attn.qkv.{match[2]}"
        for theirs, ours in _TRANSFORMERS_NAMES:
            name = name.replace(theirs, ours)
        renamed[name] = array
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
    ("classifier.", "head."),
)
