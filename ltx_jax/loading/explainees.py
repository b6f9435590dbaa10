"""Explainees from their names and weight files."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import Architecture, architecture
from ltx_jax.settings.sections import Settings, checked
from ltx_jax.weights.files import hub_file, read_safetensors
from ltx_jax.weights.state_dict import StateDict, from_state_dict, shapes_of, unwrapped


def load_explainee(
    name: str,
    weights: str | Path | None = None,
    *,
    compute_dtype: str = Settings.compute_dtype,
    attention: str = Settings.attention,
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
      **sizes: module attributes that differ from the published network's (`num_classes`, …), and
        `mean` and `std` of its normalisation. Which tokens a ViT has is told by its weights; so
        are the sizes of `vit`.

    Raises:
      InputError: for an unknown name, weights that are not there, or that do not fit.
    """
    network = computing(architecture(name, **sizes), compute_dtype, attention)
    state, source = published(network, weights, "config.explainee.weights")
    network, state = fitted(
        network, state, [name for name, size in sizes.items() if size is not None]
    )
    shapes = shapes_of(network.module, network.size, network.channels)
    params = from_state_dict(state, network.table(network.module), shapes, source)
    num_classes = network.module.num_classes
    if class_names and len(class_names) != num_classes:
        raise InputError(
            f"{len(class_names)} class names for the {num_classes} classes of {name}: give one a "
            "class"
        )
    return Explainee(
        apply=network.apply,
        params=jax.tree.map(jnp.asarray, params),
        image_size=network.size,
        num_classes=num_classes,
        name=name,
        class_names=tuple(class_names),
        channels=network.channels,
        features=network.features,
        architecture=network,
    )


def computing(network: Architecture, compute_dtype: str, attention: str) -> Architecture:
    """The network with its compute type and its way to compute attention.

    Raises:
      InputError: where there is no such type or way, or not for this network.
    """
    how: dict[str, Any] = {"compute_dtype": compute_dtype, "attention": attention}
    checked(Settings(**how))
    module = network.module.clone(dtype=jnp.dtype(compute_dtype))
    return dataclasses.replace(network, module=module.with_attention(network.name, attention))


def fitted(
    network: Architecture, state: StateDict, given: Collection[str]
) -> tuple[Architecture, StateDict]:
    """A network as its weights tell, but for `given` attributes, and the weights made for it.

    Raises:
      InputError: where they tell of sizes that do not fit, or not all of them.
    """
    network = network.of(state, given)
    return network, network.adapted(state, network.module)


def published(
    network: Architecture, weights: str | Path | None, flag: str
) -> tuple[StateDict, str]:
    """A network's state dict in timm's names, and what to call it in a message.

    Args:
      network: whose weights.
      weights: a file; None for the hub.
      flag: the setting that takes a file, for the error.

    Raises:
      InputError: where they are not to be had.
    """
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
    state = unwrapped(read_safetensors(weights)[0])
    for dialect in network.dialects:
        state = dialect(state) or state
    return state, f"{weights} for {network.name}"
