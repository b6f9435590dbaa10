"""What the original LTX code calls the tensors of its networks: to our names, and back.

Its module holds a classifier (the explainee) and a network that draws masks (the explainer), each a
ViT of transformers or a ResNet or DenseNet of torchvision. Ours are timm's names, which for the
latter two are torchvision's.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.weights.state_dict import StateDict
from ltx_jax.weights.vision_transformers import (
    vit_from_transformers,
    vit_structure,
    vit_to_transformers,
)

# What batch norms and embeddings count: no weights.
COUNTERS = ("num_batches_tracked", "position_ids")
# Weights of a mask head, and of each kind's classifier, in our names.
HEADS = ("patch_classifier.weight", "bottleneck.weight")
CLASSIFIERS = {"vit": "head.weight", "resnet": "fc.weight", "densenet": "classifier.weight"}
# Of whatever kind the two are.
_EXPLAINEE, _EXPLAINER = "vit_for_classification_image.", "vit_for_patch_classification."
# Of a ResNet's children those that have weights, by their place.
RESNET_CHILDREN = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}
# What its ViTs have of what `vit_structure` tells.
_PLAIN = {"class_token", "qkv_bias", "prefix_positions"}
# Every part of its names but numbers; of those in one module the first one comes first.
_ORDER = (
    *("vit", "embeddings", "cls_token", "position_embeddings", "patch_embeddings", "projection"),
    *("encoder", "layer", "attention", "query", "key", "value", "intermediate", "output", "dense"),
    *("layernorm_before", "layernorm_after", "layernorm", "patch_pooler", "patch_classifier"),
    *("features", "conv0", "norm0", "denseblock1", "transition1", "denseblock2", "transition2"),
    *("denseblock3", "transition3", "denseblock4", "norm5", "norm", "conv"),
    *("norm1", "conv1", "bn1", "norm2", "conv2", "bn2", "conv3", "bn3", "downsample"),
    *("layer1", "layer2", "layer3", "layer4", "fc", "classifier", "bottleneck"),
    *("weight", "bias", "running_mean", "running_var"),
)


def from_original(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The original's names for an explainer, without their prefix, in ours; its parameters and
    moments alike."""
    if (in_timm := vit_from_transformers(named)) is not None:
        return dict(in_timm)
    is_densenet = any(".denseblock" in name for name in named)
    renamed = {}
    for name, value in named.items():
        if match := re.match(r"encoder\.(\d+)\.(.*)", name):
            child = "features" if is_densenet else RESNET_CHILDREN[int(match[1])]
            name = f"{child}.{match[2]}"
        renamed[name.replace("bottleneck.0.", "bottleneck.")] = value
    return renamed


def kind_of(state: StateDict, source: str | Path) -> str:
    """Which of the original's networks a state dict in our names is of, a key of `CLASSIFIERS`.

    Raises:
      InputError: where it is of another one; `source` is what to call it.
    """
    if "patch_embed.proj.weight" in state:
        structure = vit_structure(state).items()
        if other := [name for name, found in structure if bool(found) != (name in _PLAIN)]:
            raise InputError(
                f"{source} is of a ViT that differs from the original's in {', '.join(other)}: "
                "give a plain one's"
            )
        return "vit"
    if any(".denseblock" in name for name in state):
        return "densenet"
    if "layer4.0.conv1.weight" in state:
        return "resnet"
    raise InputError(
        f"{source} is of no network that the original has: give a ViT's, a ResNet's or a DenseNet's"
    )


def explainee_to_original(state: StateDict) -> dict[str, np.ndarray]:
    """A classifier in the original's names and order.

    Raises:
      InputError: where it is none that the original has.
    """
    source = "the explainee"
    state = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTERS)}
    kind = kind_of(state, source)
    if CLASSIFIERS[kind] not in state:
        raise InputError(f"{source} has no {CLASSIFIERS[kind]}: give a classifier's weights")
    return _in_order(_vit(state, source) if kind == "vit" else state, _EXPLAINEE, source)


def explainer_to_original(named: StateDict, kind: str, source: str | Path) -> dict[str, np.ndarray]:
    """An explainer's parameters, or moments of them, in the original's names and order.

    Args:
      named: in our names; all of them, or some.
      kind: see `kind_of`.
      source: for messages.

    Raises:
      InputError: where the original has no such names.
    """
    if kind == "vit":
        return _in_order(_vit(named, source), _EXPLAINER, source)
    children = {"features": 0} if kind == "densenet" else {c: i for i, c in RESNET_CHILDREN.items()}
    places = {child: f"encoder.{i}" for child, i in children.items()} | {
        "bottleneck": "bottleneck.0"
    }
    renamed = {}
    for name, tensor in named.items():
        child, _, rest = name.partition(".")
        if name == "bottleneck.weight" and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]  # a 1×1 convolution, which we have as a dense layer
        renamed[f"{places.get(child, child)}.{rest}"] = tensor
    return _in_order(renamed, _EXPLAINER, source)


def _vit(named: StateDict, source: str | Path) -> StateDict:
    """timm's names for a ViT in transformers', where all but the heads is in `vit`."""
    for name, tensor in named.items():
        if ".qkv." in name and (not tensor.ndim or len(tensor) % 3):
            raise InputError(
                f"{name} of {source} has shape {tensor.shape}: expected queries, keys and values "
                "of one size; fetch it again"
            )
    heads = ("classifier.", "patch_classifier.", "patch_pooler.")
    renamed = {re.sub(r"^head\.", heads[0], name): tensor for name, tensor in named.items()}
    return {
        name if name.startswith(heads) else f"vit.{name}": tensor
        for name, tensor in vit_to_transformers(renamed).items()
    }


def _in_order(named: StateDict, prefix: str, source: str | Path) -> dict[str, np.ndarray]:
    """The tensors under a prefix, in the order in which PyTorch's module has them."""
    if whole := [name for name, tensor in named.items() if tensor.dtype.kind != "f"]:
        raise InputError(
            f"{source} holds {named[whole[0]].dtype} in {whole[0]}: give its weights in floats"
        )
    places = {name: [_place(part) for part in name.split(".")] for name in named}
    if unknown := [name for name, place in places.items() if None in place]:
        raise InputError(
            f"{source} holds {unknown[0]}, which no network of the original has: give a plain "
            "ViT's, a ResNet's or a DenseNet's"
        )
    return {prefix + name: named[name] for name in sorted(named, key=places.__getitem__)}


def _place(part: str) -> int | None:
    """Where a part of a name comes inside its module; None where the original has no such part."""
    if number := re.fullmatch(r"(?:denselayer)?(\d{1,4})", part):
        return int(number[1])
    return _ORDER.index(part) if part in _ORDER else None
