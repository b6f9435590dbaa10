"""A Lightning checkpoint of NN-Explainer as weights of its explainer and its classifier.

python tools/convert_nn_explainer_checkpoint.py vgg16_voc.ckpt --explainer=explainer.safetensors \
    --classifier=vgg16_voc.safetensors

A checkpoint of the classifier alone is converted with --classifier alone. PyTorch is not needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nn_explainer_names import (
    EXPLAINER_HEAD,
    HEADS,
    classifier_from_original,
    classifier_kind,
    networks_in,
    resnet_depths,
    vgg_depths,
)
from original_names import COUNTERS

from ltx_jax.errors import InputError
from ltx_jax.explainers.deeplab import DeepLabHead
from ltx_jax.explainers.explainer import MaskNetwork, weight_table
from ltx_jax.files import write_bytes
from ltx_jax.loading.checkpoints import explainer_metadata
from ltx_jax.models.architecture import Architecture
from ltx_jax.models.registry import architecture
from ltx_jax.weights.files import to_safetensors
from ltx_jax.weights.state_dict import Entry, StateDict, from_state_dict, shapes_of
from ltx_jax.weights.torch_archive import read_archive


class Weights(NamedTuple):
    """A network's content of a safetensors file.

    Attributes:
      network: what it is of; of an explainer the backbone.
      classes: that it has logits, or masks, for.
      tensors: float32, in torchvision's names.
      metadata: of the file.
    """

    network: Architecture
    classes: int
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]

    def __str__(self) -> str:
        depths = ", ".join(map(str, self.network.sizes["depths"]))
        return f"{self.network.name} (depths {depths}) for {self.classes} classes"


class Converted(NamedTuple):
    """What a checkpoint holds; None for a network that it does not.

    Attributes:
      explainer, classifier: the networks.
      left_out: how many tensors are of neither, by what they are under.
    """

    explainer: Weights | None
    classifier: Weights | None
    left_out: Mapping[str, int]


def convert(content: Any, source: str | Path) -> Converted:
    """Both networks of a checkpoint, as far as it holds them, in torchvision's names.

    Args:
      content: what `read_archive` gave.
      source: for messages.

    Raises:
      InputError: where it is no such checkpoint, where tensors are missing or left over, or where
        the classes of the two differ.
    """
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    named = state.items() if isinstance(state, Mapping) else ()
    tensors = {
        str(name): value
        for name, value in named
        if isinstance(value, np.ndarray) and not str(name).endswith(COUNTERS)
    }
    found = networks_in(tensors, source)
    explainer = _explainer(found.explainer, source) if found.explainer else None
    classifier = _classifier(found.classifier, source) if found.classifier else None
    if explainer and classifier and explainer.classes != classifier.classes:
        raise InputError(
            f"{source} holds an explainer for {explainer.classes} classes beside a classifier of "
            f"{classifier.classes}: expected as many; give a checkpoint as it was written"
        )
    return Converted(explainer, classifier, found.left_out)


def _explainer(state: StateDict, source: str | Path) -> Weights:
    """The network that draws the masks, from torchvision's names without `backbone.`."""
    classes = _rows(state, EXPLAINER_HEAD, source)
    network = architecture("resnet50", depths=resnet_depths(state), dilated=[False, True, True])
    network = network.with_module(num_classes=0)
    module = MaskNetwork(network.module, DeepLabHead(classes))
    table = weight_table(network, module.head)
    tensors = _fitting(state, table, module, network, f"the explainer in {source}")
    return Weights(network, classes, tensors, _metadata(network, classes))


def _metadata(network: Architecture, classes: int) -> dict[str, str]:
    """What an explainer's file says of its network: all that it is loaded with."""
    configuration = {
        "name": network.name,
        "sizes": network.sizes,
        "activation": "sigmoid",
        "trained": "all",
        "head": "deeplab",
        "classes": classes,
    }
    return explainer_metadata(configuration)


def _classifier(named: StateDict, source: str | Path) -> Weights:
    """The network that is explained, from the original's names."""
    kind = classifier_kind(named, source)
    state = classifier_from_original(named, kind)
    if kind == "vgg16":
        hidden = _rows(state, "classifier.0.weight", source)
        sizes = {"depths": vgg_depths(state), "hidden": hidden}
    else:
        sizes = {"depths": resnet_depths(state)}
    classes = _rows(state, HEADS[kind], source)
    network = architecture(kind, num_classes=classes, **sizes)
    table = network.table(network.module)
    tensors = _fitting(state, table, network.module, network, f"the classifier in {source}")
    return Weights(network, classes, tensors, {})


def _rows(state: StateDict, name: str, source: str | Path) -> int:
    """Outputs of a layer by its weights."""
    if name not in state or not state[name].ndim or not len(state[name]):
        raise InputError(
            f"{source} has no {name} to tell the width of its layer: fetch it again, or give a "
            "checkpoint as it was written"
        )
    return len(state[name])


def _fitting(
    state: StateDict, table: Sequence[Entry], module: Any, network: Architecture, source: str
) -> dict[str, np.ndarray]:
    """The tensors in the order of the table, once they are seen to fit the network."""
    from_state_dict(state, table, shapes_of(module, network.size), source)
    names = (name for entry in table for name in entry.names)
    return {name: np.array(state[name], np.float32, order="C") for name in names}


def main() -> int:
    """Convert one file; 0 when done, 2 where it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the Lightning .ckpt")
    parser.add_argument("--explainer", type=Path, help="the .safetensors file to write")
    parser.add_argument("--classifier", type=Path, help="the .safetensors file to write")
    arguments = parser.parse_args()
    targets = {"explainer": arguments.explainer, "classifier": arguments.classifier}
    try:
        told = _write(arguments.source, {name: path for name, path in targets.items() if path})
    except InputError as error:
        print(f"convert_nn_explainer_checkpoint: {error}", file=sys.stderr)
        return 2
    print(told)
    return 0


def _write(source: Path, targets: Mapping[str, Path]) -> str:
    """Write the networks that are asked for, all of them or none; says what is written."""
    if not targets:
        raise InputError("nothing to write: give --explainer=FILE, --classifier=FILE or both")
    converted = convert(read_archive(source), source)
    found = {"explainer": converted.explainer, "classifier": converted.classifier}
    told = []
    for name in targets:
        if found[name] is None:
            raise InputError(f"{source} holds no {name}: leave --{name} out")
    for name, weights in found.items():
        if weights is None:
            continue
        if name in targets:
            write_bytes(targets[name], to_safetensors(weights.tensors, weights.metadata))
            told.append(f"{name}: {weights}, {len(weights.tensors)} tensors to {targets[name]}")
        else:
            told.append(f"{name}: {weights}, not written; give --{name}=FILE for it")
    told += [f"left out: {n} tensors under {group}" for group, n in converted.left_out.items()]
    return "\n".join(told)


if __name__ == "__main__":
    sys.exit(main())
