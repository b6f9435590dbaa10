"""What the original NN-Explainer code calls the tensors of its networks: to torchvision's names.

Its modules hold a DeepLabv3 that draws a mask for each class (the explainer) and a VGG-16 or a
ResNet-50 (the classifier), whose layers are numbered as they follow one another.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from original_names import RESNET_CHILDREN

from ltx_jax.errors import InputError
from ltx_jax.weights.state_dict import StateDict, collapse

# The head's last layer by the network that has it, in the original's names and in torchvision's.
_ORIGINAL_HEADS = {"vgg16": "classifier.6.weight", "resnet50": "classifier.weight"}
HEADS = {"vgg16": "classifier.6.weight", "resnet50": "fc.weight"}
EXPLAINER_HEAD = "classifier.4.weight"
# The explainer, beside a classifier or, in the self-explainer, by itself.
_EXPLAINERS = ("explainer.explainer.", "model.explainer.")
# A classifier inside of the explainer's checkpoint, or one by itself.
_CLASSIFIERS = ("classifier.", "")
_LAYERS, _HEAD = "feature_extractor.", "classifier."
# A second head for training, and the fixed filters that measure a mask's variation.
_AUXILIARY, _FILTERS = "aux_classifier.", "total_variation_conv."
# VGG's groups of convolutions; each ends with a pool.
_GROUPS = 5


class Originals(NamedTuple):
    """The networks of a checkpoint.

    Attributes:
      explainer: in torchvision's names, without `backbone.`; empty where there is none.
      classifier: in the original's names, without what they are all under; empty where there is
        none.
      left_out: how many tensors are of neither network, by what they are under.
    """

    explainer: dict[str, np.ndarray]
    classifier: dict[str, np.ndarray]
    left_out: Counter[str]


def networks_in(state: StateDict, source: str | Path) -> Originals:
    """The tensors of a checkpoint by the network that they are of.

    Raises:
      InputError: where there is no such network, or tensors beside them that are not known.
    """
    explainer = next((p for p in _EXPLAINERS if _any_under(state, p)), _EXPLAINERS[0])
    classifier = next((p for p in _CLASSIFIERS if _any_under(state, p + _LAYERS)), None)
    found, unknown = Originals({}, {}, Counter()), []
    for name, tensor in state.items():
        own = name.removeprefix(explainer)
        if own.startswith(_AUXILIARY) and own != name:
            found.left_out[explainer + _AUXILIARY] += 1
        elif own != name:
            found.explainer[own.removeprefix("backbone.")] = tensor
        elif classifier is not None and name.startswith((classifier + _LAYERS, classifier + _HEAD)):
            found.classifier[name.removeprefix(classifier)] = tensor
        elif name.startswith(_FILTERS):
            found.left_out[_FILTERS] += 1
        else:
            unknown.append(name)
    if not found.explainer and not found.classifier:
        raise InputError(
            f"{source} holds no network of NN-Explainer: expected a Lightning checkpoint with "
            f"{_EXPLAINERS[0]}… or {_LAYERS}…; tools/convert_ltx_checkpoint.py is for LTX's"
        )
    if unknown:
        raise InputError(
            f"{source} holds {', '.join(collapse(unknown))} beside the networks of NN-Explainer: "
            "expected its explainer and its classifier; give a checkpoint as it was written"
        )
    return found


def _any_under(state: StateDict, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)


def classifier_kind(named: StateDict, source: str | Path) -> str:
    """Which network a classifier is, a key of `HEADS`.

    Args:
      named: in the original's names.
      source: for messages.

    Raises:
      InputError: where it is another one.
    """
    for kind, head in _ORIGINAL_HEADS.items():
        if head in named:
            return kind
    raise InputError(
        f"{source} holds a classifier of a kind that NN-Explainer does not have: expected a VGG-16 "
        f"(with {_ORIGINAL_HEADS['vgg16']}) or a ResNet-50 (with {_ORIGINAL_HEADS['resnet50']}); "
        "give one of these"
    )


def classifier_from_original(named: StateDict, kind: str) -> dict[str, np.ndarray]:
    """A classifier in torchvision's names; a name that is none of the original's stays.

    Args:
      named: in the original's names.
      kind: see `classifier_kind`.
    """
    if kind == "vgg16":
        return {re.sub(rf"^{_LAYERS}", "features.", name): x for name, x in named.items()}
    renamed = {}
    for name, tensor in named.items():
        match = re.fullmatch(r"feature_extractor\.(\d)\.(.*)", name)
        if match and int(match[1]) in RESNET_CHILDREN:
            name = f"{RESNET_CHILDREN[int(match[1])]}.{match[2]}"
        renamed[re.sub(rf"^{_HEAD}", "fc.", name)] = tensor
    return renamed


def resnet_depths(state: StateDict) -> tuple[int, ...]:
    """Blocks of each stage of a ResNet in torchvision's names; one at least, to be missed."""
    blocks = {match[0] for name in state if (match := re.match(r"layer[1-4]\.\d+\.", name))}
    stages = Counter(block[: len("layer1")] for block in blocks)
    return tuple(max(1, stages[f"layer{stage}"]) for stage in (1, 2, 3, 4))


def vgg_depths(state: StateDict) -> tuple[int, ...]:
    """Convolutions of each group of a VGG in torchvision's names; its batch norms are unknown."""
    matches = (re.fullmatch(r"features\.(\d{1,3})\.weight", name) for name in state)
    depths: list[int] = []
    last = None
    for place in sorted(int(match[1]) for match in matches if match):
        # Between two convolutions is a ReLU; where a group ends, a pool as well.
        if last is not None and place - last == 2:
            depths[-1] += 1
        else:
            depths.append(1)
        last = place
    return tuple(depths[:_GROUPS])
