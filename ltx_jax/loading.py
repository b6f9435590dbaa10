"""Explainees and explainers from their names and weight files, and explainers back to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ltx_jax.engine.adamw import Moments
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee, normalised
from ltx_jax.explainers.explainer import TRAINED, Explainer, Leaves, MaskNetwork, join, split
from ltx_jax.models.layers import precision
from ltx_jax.models.registry import Architecture, architecture
from ltx_jax.models.vit import ATTENTION
from ltx_jax.reporting.files import write_bytes
from ltx_jax.weights.files import hub_file, read_safetensors
from ltx_jax.weights.state_dict import (
    Entry,
    StateDict,
    Variables,
    from_state_dict,
    layer,
    shapes_of,
    to_state_dict,
    under,
)

COMPUTE_DTYPES = ("float32", "bfloat16")
FIRST_MOMENT, SECOND_MOMENT = "exp_avg/", "exp_avg_sq/"
LORA_NAME = ".lora_"


class SavedOptimizer(NamedTuple):
    """What an explainer checkpoint keeps of its AdamW: moments, steps taken, last learning rate."""

    moments: Moments
    step: int
    learning_rate: float


def load_explainee(
    name: str,
    weights: str | Path | None = None,
    *,
    compute_dtype: str = "float32",
    attention: str = "xla",
    class_names: Sequence[str] = (),
    **sizes: Any,
) -> Explainee:
    """A pretrained classifier by its timm name.

    Args:
      name: e.g. `resnet50`, `vit_base_patch16_224`.
      weights: a .safetensors file in timm, torchvision or transformers naming; None for the hub.
      compute_dtype: `float32` (highest precision) or `bfloat16`.
      attention: of a ViT: `xla`, or `cudnn` for the fused kernel of CUDA GPUs, in bfloat16.
      class_names: one a class, for people.
      **sizes: module attributes that differ from the published network's (`num_classes`, …).

    Raises:
      InputError: for an unknown name, weights that are not there, or that do not fit.
    """
    network = _computing(architecture(name, **sizes), compute_dtype, attention)
    state, source = _published(network, weights, "config.explainee.weights")
    table = network.table(network.module)
    params = from_state_dict(state, table, shapes_of(network.module, network.size), source)
    if class_names and len(class_names) != network.module.num_classes:
        raise InputError(
            f"{len(class_names)} class names for the {network.module.num_classes} classes of "
            f"{name}: give one a class"
        )
    module, how = network.module, network.preprocessing

    def apply(params: Variables, images: jax.Array) -> jax.Array:
        with precision(module.dtype):
            return module.apply(params, normalised(images, how.mean, how.std))[0]

    return Explainee(
        apply=apply,
        params=jax.tree.map(jnp.asarray, params),
        image_size=network.size,
        num_classes=module.num_classes,
        name=name,
        class_names=tuple(class_names),
        architecture=network,
    )


def load_explainer(
    explainee: Explainee,
    name: str | None = None,
    checkpoint: str | Path | None = None,
    weights: str | Path | None = None,
    *,
    activation: str = "sigmoid",
    head_bias: float | None = None,
    trained: str = "all",
    frozen_blocks: int = 0,
    lora_rank: int = 4,
    compute_dtype: str = "float32",
    attention: str = "xla",
    seed: int = 0,
    **sizes: Any,
) -> Explainer:
    """A mask network for an explainee.

    Args:
      explainee: what is to be explained.
      name: timm name of the backbone; None for the explainee's own network.
      checkpoint: an explainer checkpoint (`save_explainer`); None for a fresh mask head, whose
        masks are poor until it is pretrained.
      weights: of the backbone when there is no checkpoint; None for the explainee's own where it
        is the same network, else for the hub.
      activation: of the mask, see `explainers.masks.activate`.
      head_bias: of a fresh head's last layer; None for the original's.
      trained: `all`, `head` (the mask head alone) or `lora` (the mask head, and an update of low
        rank beside the weights of each dense layer of a ViT).
      frozen_blocks: first blocks of a ViT that are not trained.
      lora_rank: of those updates.
      compute_dtype: `float32` or `bfloat16`; parameters are float32 either way.
      attention: as for the explainee.
      seed: of a fresh head and fresh updates.
      **sizes: module attributes that differ from the published network's.

    Raises:
      InputError: as `load_explainee`; or where the image sizes of the two differ.
    """
    backbone = _computing(_backbone(explainee, name, sizes), compute_dtype, attention)
    backbone = with_trained(backbone, trained, frozen_blocks, lora_rank)
    if backbone.size != explainee.image_size:
        raise InputError(
            f"the explainer {backbone.name} takes images of {backbone.size} pixels, the explainee "
            f"{explainee.name} of {explainee.image_size}: choose two of the same size"
        )
    module = MaskNetwork(
        backbone.module, backbone.mask_head, activation, head_bias, backbone.module.dtype, trained
    )
    if checkpoint is not None:
        template = shapes_of(module, backbone.size)
        variables = _read_explainer(checkpoint, explainer_table(backbone), template, seed)
    else:
        state, source = _backbone_state(explainee, backbone, name, weights)
        variables = _with_fresh_head(module, backbone, state, source, seed)
    changing, frozen = split(variables, trained)
    return Explainer(
        module=module,
        trained=changing,
        frozen=frozen,
        mean=backbone.preprocessing.mean,
        std=backbone.preprocessing.std,
        image_size=backbone.size,
        architecture=backbone,
    )


def load_trained(path: str | Path, explainer: Explainer) -> Leaves:
    """The trained leaves of a checkpoint of the same network as `explainer`.

    Raises:
      InputError: where it is missing, or of another network.
    """
    template = join(explainer.trained, explainer.frozen)
    variables = _read_explainer(path, explainer_table(explainer.architecture), template)
    return split(variables, explainer.module.trained)[0]


def explainer_table(backbone: Architecture) -> list[Entry]:
    """The weight table of a mask network: its backbone's, and the mask head's own names."""
    entries = under("backbone", backbone.table(backbone.module))
    if backbone.mask_head == "tokens":
        return entries + layer("pooler", "patch_pooler") + layer("mask", "patch_classifier")
    return entries + layer("mask", "bottleneck")


def save_explainer(
    path: str | Path,
    explainer: Explainer,
    trained: Leaves | None = None,
    optimizer: SavedOptimizer | None = None,
) -> None:
    """Write an explainer checkpoint: a safetensors file in timm's names.

    Args:
      path: replaced as a whole, or not at all.
      explainer: gives the network, and its leaves where `trained` is None.
      trained: leaves to write instead of the explainer's.
      optimizer: AdamW's state, so that finetuning can resume it.

    Raises:
      InputError: where the file cannot be written.
    """
    from safetensors.numpy import save

    table = explainer_table(explainer.architecture)
    trained = explainer.trained if trained is None else trained
    tensors = to_state_dict(join(trained, explainer.frozen), table)
    metadata = {"format": "ltx_jax explainer", "explainer": explainer.architecture.name}
    if optimizer is not None:
        for prefix, moments in zip((FIRST_MOMENT, SECOND_MOMENT), optimizer.moments, strict=True):
            named = to_state_dict(join(moments), table)
            tensors |= {prefix + name: tensor for name, tensor in named.items()}
        metadata |= {
            "step": str(optimizer.step),
            "learning_rate": repr(optimizer.learning_rate),
        }
    write_bytes(Path(path), save(tensors, metadata))


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
    table = explainer_table(explainer.architecture)
    unused = [name for e in table if e.path not in explainer.trained for name in e.names]
    table = [e for e in table if e.path in explainer.trained]
    found = []
    for prefix in (FIRST_MOMENT, SECOND_MOMENT):
        state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        variables = from_state_dict(
            state, table, join(explainer.trained), f"the optimizer state of {path}", unused
        )
        found.append(split(variables, explainer.module.trained)[0])
    return SavedOptimizer(Moments(*found), int(metadata["step"]), float(metadata["learning_rate"]))


def _read_explainer(
    path: str | Path, table: Sequence[Entry], template: Variables, seed: int = 0
) -> Variables:
    tensors, _ = read_safetensors(path)
    moments = (FIRST_MOMENT, SECOND_MOMENT)
    state = {name: t for name, t in tensors.items() if not name.startswith(moments)}
    whole = _with_fresh_updates(state, table, template, seed)
    return from_state_dict(whole, table, template, f"explainer checkpoint {path}")


def _with_fresh_updates(
    state: StateDict, table: Sequence[Entry], template: Variables, seed: int
) -> StateDict:
    """The state dict with LoRA's leaves, as they are before any training, where it has none."""
    if any(LORA_NAME in name for name in state):
        return state
    rng = np.random.default_rng(seed)
    shapes = {"/".join(path): leaf.shape for path, leaf in flatten_dict(template).items()}
    fresh = dict(state)
    for entry in table:
        for name in entry.names if LORA_NAME in entry.names[0] else ():
            *_, rows, columns = shapes[entry.path]
            # x·A keeps the scale of x; B starts from zero, so that nothing is changed yet.
            scale = rows**-0.5 if name.endswith("lora_a") else 0.0
            fresh[name] = (scale * rng.normal(size=(rows, columns))).astype(np.float32)
    return fresh


def _computing(network: Architecture, compute_dtype: str, attention: str) -> Architecture:
    """The network with its compute type and its way to compute attention."""
    chosen = (
        ("compute_dtype", compute_dtype, COMPUTE_DTYPES),
        ("attention", attention, tuple(ATTENTION)),
    )
    for setting, given, choices in chosen:
        if given not in choices:
            raise InputError(f"{setting} {given!r} is not one of {', '.join(choices)}")
    network = network.with_module(dtype=jnp.dtype(compute_dtype))
    if not hasattr(network.module, "attention"):
        if attention != "xla":
            raise InputError(f"{network.name} is no ViT: leave attention at xla")
        return network
    if attention == "cudnn" and (compute_dtype == "float32" or jax.default_backend() != "gpu"):
        raise InputError(
            f"attention cudnn is for CUDA GPUs and compute_dtype bfloat16, not for {compute_dtype} "
            f"on a {jax.default_backend()}: leave it at xla"
        )
    return network.with_module(attention=attention)


def _published(
    network: Architecture, weights: str | Path | None, flag: str
) -> tuple[StateDict, str]:
    """A network's state dict in timm's names, and what to call it in a message."""
    if weights is None:
        if network.hub is None:
            what = (
                f"download {network.download}, convert it with tools/convert_weights.py and give"
                if network.download
                else "give"
            )
            raise InputError(
                f"{network.name} has no weights on the hub: {what} their path with {flag}"
            )
        weights = hub_file(network.hub, flag)
    state: StateDict = read_safetensors(weights)[0]
    for dialect in network.dialects:
        state = dialect(state) or state
    return state, f"{weights} for {network.name}"


def _backbone(explainee: Explainee, name: str | None, sizes: dict[str, Any]) -> Architecture:
    own = explainee.architecture
    if name is None and own is None:
        raise InputError(
            "an explainee of your own needs an explainer by name: set explainer.name to a network "
            "for the same image size, e.g. vit_small_patch16_224"
        )
    if name is None or (own is not None and name == own.name and not sizes):
        assert own is not None
        network = own
    else:
        network = architecture(name, **sizes)
    return network.with_module(num_classes=0)


def with_trained(
    network: Architecture, trained: str, frozen_blocks: int, lora_rank: int
) -> Architecture:
    """The backbone made for the part of it that is to be trained.

    Raises:
      InputError: where the network has no such part.
    """
    if trained not in TRAINED:
        raise InputError(f"explainer.trained is {trained!r}: it is one of {', '.join(TRAINED)}")
    if not hasattr(network.module, "frozen_blocks"):
        if frozen_blocks:
            raise InputError(f"{network.name} has no blocks to freeze: set frozen_blocks to 0")
        if trained == "lora":
            raise InputError(
                f"{network.name} is no ViT, which LoRA is for: set explainer.trained to all or head"
            )
        return network
    if not 0 <= frozen_blocks < network.module.depth:
        raise InputError(
            f"frozen_blocks {frozen_blocks} of {network.module.depth}: at least one block is to be "
            "trained"
        )
    if trained == "lora" and lora_rank < 1:
        raise InputError(f"explainer.lora_rank is {lora_rank}: it must be at least 1")
    rank = lora_rank if trained == "lora" else 0
    return network.with_module(frozen_blocks=frozen_blocks, lora_rank=rank)


def _backbone_state(
    explainee: Explainee, backbone: Architecture, name: str | None, weights: str | Path | None
) -> tuple[StateDict, str]:
    own = explainee.architecture
    if weights is None and own is not None and backbone.name == own.name:
        return to_state_dict(explainee.params, own.table(own.module)), explainee.name
    return _published(backbone, weights, "config.explainer.weights")


def _with_fresh_head(
    module: MaskNetwork, backbone: Architecture, state: StateDict, source: str, seed: int
) -> Variables:
    table, template = backbone.table(backbone.module), shapes_of(backbone.module, backbone.size)
    pretrained = from_state_dict(
        _with_fresh_updates(state, table, template, seed),
        table,
        template,
        source,
        unused=(backbone.classifier,),
    )
    image = jnp.zeros((1, *backbone.size, 3))
    variables = jax.jit(module.init)(jax.random.key(seed), image)
    return {
        collection: leaves | {"backbone": pretrained[collection]}
        for collection, leaves in variables.items()
    }
