"""A Lightning checkpoint of LTX as an explainer checkpoint, or back, optimizer state included.

python tools/convert_ltx_checkpoint.py "pltx_vit_epoch=3.ckpt" pltx_vit.safetensors
python tools/convert_ltx_checkpoint.py --to-pytorch --explainee=vit.safetensors \
    explainer.safetensors "pltx_epoch=0_val_epoch_auc=0.ckpt"

The original goes on only from a checkpoint that holds the classifier as well, and wants to know by
the file's name (`…epoch=N_val_epoch_auc=A.ckpt`) of which epoch it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from original_names import (
    CLASSIFIERS,
    COUNTERS,
    HEADS,
    explainee_to_original,
    explainer_to_original,
    from_original,
    kind_of,
)
from safetensors.numpy import save

from ltx_jax.errors import InputError
from ltx_jax.files import write_bytes
from ltx_jax.loading.checkpoints import FIRST_MOMENT, SECOND_MOMENT, configuration_in, steps_in
from ltx_jax.weights.files import read_safetensors
from ltx_jax.weights.state_dict import StateDict, unwrapped
from ltx_jax.weights.torch_archive import read_archive
from ltx_jax.weights.torch_writing import write_archive
from ltx_jax.weights.vision_transformers import vit_from_transformers

# What batch norms keep beside their parameters: in the state dict, not in the optimizer.
_BUFFERS = ("running_mean", "running_var", *COUNTERS)
# What the original leaves as PyTorch has it.
_ADAMW = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "amsgrad": False}


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
    tensors = from_original(_explainer_part(state, prefix))
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
        if name.startswith(prefix) and not name.endswith(COUNTERS)
    }


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
    first, second = (from_original(_explainer_part(values, prefix)) for values in found.values())
    return first, second, steps.pop()


def to_pytorch(
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    source: str | Path,
    explainee: StateDict | None = None,
    epoch: int = 1,
) -> dict[str, Any]:
    """An explainer checkpoint as Lightning writes the original's: the inverse of `convert`.

    The rate that the schedule of learning rates rises to is that of whoever goes on.

    Args:
      tensors, metadata: of an explainer checkpoint.
      source: for messages.
      explainee: the classifier's state dict in timm's (or torchvision's) names; without it the
        state dict is the explainer's alone.
      epoch: how many epochs are done.

    Raises:
      InputError: where the original has no such explainer or classifier.
    """
    weights, first, second = _parts(tensors)
    _refuse_other_explainers(weights, metadata, source)
    kind = kind_of(weights, source)
    state = {} if explainee is None else explainee_to_original(explainee)
    state |= explainer_to_original(weights, kind, source)
    content: dict[str, Any] = {"epoch": epoch, "global_step": 0}
    content |= {"pytorch-lightning_version": "1.5.8", "state_dict": state}
    content |= {"optimizer_states": [], "lr_schedulers": [], "callbacks": {}, "loops": None}
    if "step" not in metadata:
        return content
    step, rate = steps_in(metadata, source)
    first, second = (explainer_to_original(part, kind, source) for part in (first, second))
    schedule = {"last_epoch": step, "_step_count": step + 1, "_last_lr": [rate]}
    return content | {
        "global_step": step,
        "optimizer_states": [_optimizer(state, first, second, step, rate, source)],
        "lr_schedulers": [schedule | {"lr_lambdas": [None]}],
    }


def _parts(tensors: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """An explainer checkpoint's weights and two moments, by the names of the weights."""
    parts: dict[str, dict[str, np.ndarray]] = {"": {}, FIRST_MOMENT: {}, SECOND_MOMENT: {}}
    for name, tensor in tensors.items():
        prefix = next((p for p in (FIRST_MOMENT, SECOND_MOMENT) if name.startswith(p)), "")
        parts[prefix][name.removeprefix(prefix)] = tensor
    return list(parts.values())


def _refuse_other_explainers(
    weights: StateDict, metadata: Mapping[str, str], source: str | Path
) -> None:
    """Refuse what a checkpoint of the original cannot tell."""
    if sum(head in weights for head in HEADS) != 1 or weights.keys() & set(CLASSIFIERS.values()):
        raise InputError(
            f"{source} holds no explainer: expected one mask head ({' or '.join(HEADS)}) and no "
            "classifier; give what pretraining or save_explainer wrote"
        )
    if any(".lora_" in name for name in weights):
        raise InputError(
            f"{source} holds low-rank updates, which the original has no place for: give an "
            "explainer of which all or the head was trained"
        )
    configuration = configuration_in(metadata, source)
    if configuration is not None and configuration.activation not in (None, "sigmoid"):
        raise InputError(
            f"{source} makes masks by {configuration.activation}, which a checkpoint of the "
            "original does not tell: give an explainer that does by sigmoid"
        )


def _optimizer(
    state: StateDict,
    first: StateDict,
    second: StateDict,
    step: int,
    learning_rate: float,
    source: str | Path,
) -> dict[str, Any]:
    """AdamW's state, with the parameters numbered as the original numbers them; see `convert`."""
    numbers = {name: i for i, name in enumerate(n for n in state if not n.endswith(_BUFFERS))}
    for name in first.keys() | second.keys():
        shapes = {part[name].shape if name in part else None for part in (first, second, state)}
        if name not in numbers or len(shapes) != 1:
            raise InputError(
                f"the moments of {name} in {source} do not belong to its weights: fetch it again"
            )
    moments = {
        numbers[name]: {"step": step, "exp_avg": first[name], "exp_avg_sq": second[name]}
        for name in first
    }
    group = {"lr": learning_rate, **_ADAMW, "params": list(numbers.values())}
    return {"state": moments, "param_groups": [group]}


def main() -> int:
    """Convert one file; 0 when done, 2 where it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the Lightning .ckpt, or what is to become one")
    parser.add_argument("target", type=Path, help="the .safetensors file to write, or the .ckpt")
    parser.add_argument("--to-pytorch", action="store_true", help="write the .ckpt")
    parser.add_argument(
        "--explainee", type=Path, help="a .safetensors file of the classifier, to be in the .ckpt"
    )
    arguments = parser.parse_args()
    try:
        told = _write_checkpoint(arguments) if arguments.to_pytorch else _write_explainer(arguments)
    except InputError as error:
        print(f"convert_ltx_checkpoint: {error}", file=sys.stderr)
        return 2
    print(told)
    return 0


def _write_explainer(arguments: argparse.Namespace) -> str:
    """From PyTorch; says what is written."""
    if arguments.explainee is not None:
        raise InputError("--explainee is written with --to-pytorch alone: leave it out")
    tensors, metadata = convert(read_archive(arguments.source), arguments.source)
    write_bytes(arguments.target, save(tensors, metadata))
    return f"{len(tensors)} tensors to {arguments.target}, {metadata}"


def _write_checkpoint(arguments: argparse.Namespace) -> str:
    """To PyTorch; says what is written."""
    tensors, metadata = read_safetensors(arguments.source)
    explainee = None
    if arguments.explainee is not None:
        explainee = unwrapped(read_safetensors(arguments.explainee)[0])
        explainee = vit_from_transformers(explainee) or explainee
    epoch = re.search(r"epoch=(\d+)", arguments.target.name)
    done = int(epoch[1]) + 1 if epoch else 1
    content = to_pytorch(tensors, metadata, arguments.source, explainee, done)
    write_archive(arguments.target, content)
    whose = "both networks" if explainee else "the explainer alone (--explainee adds the other's)"
    return f"{len(content['state_dict'])} tensors of {whose} to {arguments.target}"


if __name__ == "__main__":
    sys.exit(main())
