"""A published Lightning checkpoint of LTX as an explainer checkpoint, optimizer state included.

python tools/convert_ltx_checkpoint.py "pltx_vit_epoch=3.ckpt" pltx_vit.safetensors
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from ltx_jax.errors import InputError
from ltx_jax.files import write_bytes
from ltx_jax.loading.checkpoints import FIRST_MOMENT, SECOND_MOMENT
from ltx_jax.weights.torch_archive import read_archive
from ltx_jax.weights.vision_transformers import vit_from_transformers

# What batch norms keep beside their parameters: in the state dict, not in the optimizer.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")
_RESNET_CHILDREN = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}


class Converted(NamedTuple):
    """Tensors of an explainer checkpoint and its metadata."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]


def convert(content: Any, source: str | Path) -> Converted:
    """An LTX checkpoint in timm's (or torchvision's) names.

    The original's AdamW is given all parameters of the module that holds explainee and explainer,
    in the order of its state dict; so the i-th parameter of the optimizer is the state dict's i-th
    tensor that is no buffer. Each moment must have its parameter's shape.

    Args:
      content: what `read_archive` gave.
      source: for messages.

    Raises:
      InputError: where it is not such a checkpoint.
    """
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    heads = [
        n for n in state or () if n.endswith(("patch_classifier.weight", "bottleneck.0.weight"))
    ]
    if not isinstance(state, Mapping) or len(heads) != 1:
        raise InputError(
            f"{source} holds no LTX explainer: expected a Lightning checkpoint with one mask head "
            "(patch_classifier or bottleneck.0)"
        )
    prefix = re.sub(r"(patch_classifier|bottleneck\.0)\.weight$", "", heads[0])
    tensors = _renamed(_explainer_part(state, prefix))
    metadata = {"format": "ltx_jax explainer"}
    optimizers = content.get("optimizer_states") or []
    if optimizers:
        first, second, step = _moments(state, optimizers[0], prefix, source)
        tensors |= {FIRST_MOMENT + name: moment for name, moment in first.items()}
        tensors |= {SECOND_MOMENT + name: moment for name, moment in second.items()}
        learning_rate = float(optimizers[0]["param_groups"][0]["lr"])
        metadata |= {"step": str(step), "learning_rate": repr(learning_rate)}
    return Converted(tensors, metadata)


def _explainer_part(named: Mapping[str, Any], prefix: str) -> dict[str, np.ndarray]:
    """The explainer's float tensors without their prefix and without batch counters."""
    return {
        name.removeprefix(prefix): np.array(value, np.float32, order="C")
        for name, value in named.items()
        if name.startswith(prefix) and not name.endswith(("num_batches_tracked", "position_ids"))
    }


def _renamed(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The original's names for an explainer in ours; its parameters and moments alike."""
    if (in_timm := vit_from_transformers(named)) is not None:
        return dict(in_timm)
    is_densenet = any(".denseblock" in name for name in named)
    renamed = {}
    for name, value in named.items():
        if match := re.match(r"encoder\.(\d+)\.(.*)", name):
            child = "features" if is_densenet else _RESNET_CHILDREN[int(match[1])]
            name = f"{child}.{match[2]}"
        renamed[name.replace("bottleneck.0.", "bottleneck.")] = value
    return renamed


def _moments(
    state: Mapping[str, np.ndarray], optimizer: Mapping[str, Any], prefix: str, source: str | Path
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """AdamW's two moments by our names, and the number of steps taken."""
    parameters = [name for name in state if not name.endswith(_BUFFERS)]
    indices = [i for group in optimizer["param_groups"] for i in group["params"]]
    if len(indices) != len(parameters):
        raise InputError(
            f"the optimizer of {source} has {len(indices)} parameters, its state dict "
            f"{len(parameters)}: they do not belong together; give the checkpoint as it was written"
        )
    found: dict[str, dict[str, np.ndarray]] = {"exp_avg": {}, "exp_avg_sq": {}}
    steps = set()
    for index, entry in optimizer["state"].items():
        name = parameters[indices.index(index)]
        steps.add(int(entry["step"]))
        for moment, values in found.items():
            if entry[moment].shape != state[name].shape:
                raise InputError(
                    f"{moment} {index} of {source} has shape {entry[moment].shape}, but {name} has "
                    f"{state[name].shape}: the optimizer does not belong to this network"
                )
            values[name] = entry[moment]
    if len(steps) != 1:
        raise InputError(f"the parameters of {source} took different numbers of steps: {steps}")
    first, second = (_renamed(_explainer_part(values, prefix)) for values in found.values())
    return first, second, steps.pop()


def main() -> int:
    """Convert one file; 0 when done, 2 where it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the Lightning .ckpt")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    arguments = parser.parse_args()
    try:
        tensors, metadata = convert(read_archive(arguments.source), arguments.source)
        write_bytes(arguments.target, save(tensors, metadata))
    except InputError as error:
        print(f"convert_ltx_checkpoint: {error}", file=sys.stderr)
        return 2
    print(f"{len(tensors)} tensors to {arguments.target}, {metadata}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
