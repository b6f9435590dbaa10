"""Explainers to files and back: safetensors in timm's names, with AdamW's state where it is.

A file says itself what network it is of: its metadata hold the section of the settings that it is
loaded with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.head_for import name_of
from ltx_jax.explainers.leaves import Leaves, Moments, join, split
from ltx_jax.files import digest_of, is_there, write_bytes
from ltx_jax.models.architecture import hashable
from ltx_jax.settings.section import checked
from ltx_jax.settings.sections import MaskDrawer
from ltx_jax.weights.files import files_of, read_safetensors, to_safetensors
from ltx_jax.weights.state_dict import (
    Entry,
    StateDict,
    Variables,
    flatten,
    from_state_dict,
    to_state_dict,
)

FIRST_MOMENT, SECOND_MOMENT = "exp_avg/", "exp_avg_sq/"
_UPDATE = ".lora_"
# Of the metadata, the section as JSON.
_CONFIGURATION = "configuration"


class SavedExplainer(NamedTuple):
    """A mask network's state dict in timm's names, and its section of the settings; None in files
    that do not say it."""

    state: StateDict
    configuration: MaskDrawer | None


class SavedOptimizer(NamedTuple):
    """What an explainer checkpoint keeps of its AdamW: moments, steps taken, last learning rate."""

    moments: Moments
    step: int
    learning_rate: float


def save_explainer(
    path: str | Path,
    explainer: Explainer,
    trained: Leaves | None = None,
    optimizer: SavedOptimizer | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write an explainer checkpoint: a safetensors file in timm's names.

    Its metadata tell the network by name, sizes and normalisation, its activation, mask head and
    image size, and which part of it is trained.

    Args:
      path: replaced as a whole, or not at all.
      explainer: gives the network, and its leaves where `trained` is None.
      trained: leaves to write instead of the explainer's.
      optimizer: AdamW's state, so that finetuning can resume it.
      notes: more metadata, by name: what only who trained it knows.

    Raises:
      InputError: where the file cannot be written, or something else than an explainer is given.
    """
    if not isinstance(explainer, Explainer):
        raise InputError(
            f"a {type(explainer).__name__} in place of an explainer: call "
            "save_explainer(path, explainer), with one of load_explainer or pretrain"
        )
    table = explainer.table()
    trained = explainer.trained if trained is None else trained
    tensors = to_state_dict(join(trained, explainer.frozen), table)
    metadata = explainer_metadata(_configuration_of(explainer))
    if optimizer is not None:
        for prefix, moments in zip((FIRST_MOMENT, SECOND_MOMENT), optimizer.moments, strict=True):
            named = to_state_dict(join(moments), table)
            tensors |= {prefix + name: tensor for name, tensor in named.items()}
        metadata |= {
            "step": str(optimizer.step),
            "learning_rate": repr(optimizer.learning_rate),
        }
    write_bytes(Path(path), to_safetensors(tensors, metadata | dict(notes or {})))


def explainer_metadata(configuration: Mapping[str, Any]) -> dict[str, str]:
    """What an explainer's file says of its network.

    Args:
      configuration: all that it is loaded with, by the names of `MaskDrawer`.
    """
    told = json.dumps(configuration, default=np.generic.item)
    return {"format": "ltx_jax explainer", _CONFIGURATION: told}


def load_trained(path: str | Path, explainer: Explainer) -> Leaves:
    """The trained leaves of a checkpoint of the same network as `explainer`.

    Raises:
      InputError: where it is missing, or of another network.
    """
    return load_leaves(path, explainer)[0]


def load_leaves(path: str | Path, explainer: Explainer) -> tuple[Leaves, Leaves]:
    """The trained and the frozen leaves of a checkpoint of the same network as `explainer`.

    Raises:
      InputError: where it is missing, or of another network.
    """
    template = join(explainer.trained, explainer.frozen)
    state = read_explainer(path).state
    variables = from_state_dict(state, explainer.table(), template, named(path))
    return split(variables, explainer.module.trained)


def load_optimizer(path: str | Path, explainer: Explainer) -> SavedOptimizer:
    """AdamW's state from an explainer checkpoint.

    Raises:
      InputError: where the checkpoint holds none, or not that of this explainer.
    """
    tensors, metadata = read_safetensors(path)
    if "step" not in metadata:
        raise InputError(
            f"{path} holds no optimizer state to resume: set config.finetune.resume to False, or "
            "give a checkpoint that was saved with it"
        )
    whole = explainer.table()
    table = [entry for entry in whole if entry.path in explainer.trained]
    unused = [name for e in whole if e.path not in explainer.trained for name in e.names]
    template, source = join(explainer.trained), f"the optimizer state of {path}"
    moments = []
    for prefix in (FIRST_MOMENT, SECOND_MOMENT):
        state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        variables = from_state_dict(state, table, template, source, unused)
        moments.append(split(variables, explainer.module.trained)[0])
    return SavedOptimizer(Moments(*moments), *steps_in(metadata, path))


def steps_in(metadata: Mapping[str, str], path: str | Path) -> tuple[int, float]:
    """Steps taken and the last learning rate, from a checkpoint's metadata.

    Raises:
      InputError: where they are no numbers.
    """
    try:
        return int(metadata["step"]), float(metadata["learning_rate"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"the metadata of {path} do not tell the steps and the learning rate of its optimizer: "
            "fetch it again"
        ) from error


def read_explainer(path: str | Path) -> SavedExplainer:
    """A mask network from a checkpoint.

    Raises:
      InputError: where it is missing, no whole file, or says what is no section of the settings.
    """
    tensors, metadata = read_safetensors(path)
    moments = (FIRST_MOMENT, SECOND_MOMENT)
    state = {name: tensor for name, tensor in tensors.items() if not name.startswith(moments)}
    return SavedExplainer(state, configuration_in(metadata, path))


def configuration_in(metadata: Mapping[str, str], path: str | Path) -> MaskDrawer | None:
    """The section that a checkpoint's metadata hold; None where they hold none.

    Raises:
      InputError: where it is no section of a network.
    """
    if _CONFIGURATION not in metadata:
        return None
    try:
        told = json.loads(metadata[_CONFIGURATION])
        sizes = {name: hashable(size) for name, size in told["sizes"].items()}
        given = MaskDrawer(**told | {"sizes": sizes})
        if given.name is None or given.trained == "mask":
            raise ValueError("they are of no network")
        found: MaskDrawer = checked(given)
    except (InputError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"the metadata of {path} do not tell its network ({str(error)[:200]!r}): fetch it again"
        ) from error
    return found


def _configuration_of(explainer: Explainer) -> dict[str, Any]:
    """What of `MaskDrawer` makes an explainer of the same network."""
    return {
        "name": explainer.architecture.name,
        "sizes": explainer.architecture.sizes,
        "activation": explainer.activation,
        "trained": explainer.module.trained,
        "classes": explainer.classes,
        "head": name_of(explainer.module.head),
        **explainer.module.backbone.trained_part(),
        # Left out where there is none: then versions that know of none read the file.
        **({"edge_radius": explainer.edge_radius} if explainer.edge_radius else {}),
    }


def named(path: str | Path) -> str:
    """What to call a checkpoint in a message."""
    return f"explainer checkpoint {path}"


def with_fresh_updates(
    state: StateDict, table: Sequence[Entry], template: Variables, seed: int
) -> StateDict:
    """The state dict with low-rank updates as they are before any training, where it has none.

    Args:
      state: of a network.
      table: its weight table, with or without such updates.
      template: its variables or their shapes.
      seed: of the updates.
    """
    if any(_UPDATE in name for name in state):
        return state
    rng = np.random.default_rng(seed)
    shapes = {path: leaf.shape for path, leaf in flatten(template).items()}
    fresh = dict(state)
    for entry in table:
        for name in entry.names if _UPDATE in entry.names[0] else ():
            *_, rows, columns = shapes[entry.path]
            # x·A keeps the scale of x; B starts from zero, so that nothing is changed yet.
            scale = rows**-0.5 if name.endswith("lora_a") else 0.0
            fresh[name] = (scale * rng.normal(size=(rows, columns))).astype(np.float32)
    return fresh


def digest_of_weights(path: str | Path) -> str:
    """Of the contents of a file of weights, or of its shards.

    Raises:
      InputError: where there is none.
    """
    files = files_of(Path(path))
    if missing := [file for file in files if not is_there(file, Path.is_file)]:
        raise InputError(f"no weights at {missing[0]}: give the path of a .safetensors file")
    return digest_of(file.read_bytes() for file in files)
