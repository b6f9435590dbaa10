"""Explainees from their names and weight files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.models.architecture import Architecture
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.python_function import PythonFunction, in_one_line
from ltx_jax.models.registry import architecture
from ltx_jax.settings.section import checked
from ltx_jax.settings.sections import Network, Settings
from ltx_jax.weights.files import hub_file, read_safetensors
from ltx_jax.weights.state_dict import (
    StateDict,
    Variables,
    from_state_dict,
    shapes_of,
    unwrapped,
)


def load_explainee(
    name: str,
    weights: str | Path | None = None,
    *,
    compute_dtype: str = Settings.compute_dtype,
    attention: str = Settings.attention,
    class_names: Sequence[str] = (),
    link: str = Network.link,
    **sizes: Any,
) -> Explainee:
    """A pretrained classifier by its timm name.

    Args:
      name: e.g. `resnet50`, `vit_base_patch16_224`.
      weights: a .safetensors file in timm, torchvision or transformers naming; None for the hub.
      compute_dtype: `float32` (highest precision) or `bfloat16`.
      attention: of a ViT: `xla`, or `cudnn` for the fused kernel of CUDA GPUs, in bfloat16.
      class_names: one a class, for people.
      link: `softmax`, where one class is the answer, or `sigmoid`, where each is there or is not.
      **sizes: module attributes that differ from the published network's (`num_classes`, …), and
        `mean` and `std` of its normalisation. Which tokens a ViT has is told by its weights; so
        are the sizes of `vit`.

    Raises:
      InputError: for an unknown name, weights that are not there, or that do not fit; a link that
        the network's logits cannot have.
    """
    about: dict[str, Any] = {"link": link}
    checked(Network(**about), "explainee.")
    network = computing(architecture(name, **sizes), compute_dtype, attention)
    refuse_unsigned(network, link)
    state, source = published(network, weights, "config.explainee.weights")
    network, state = fitted(
        network, state, [name for name, size in sizes.items() if size is not None]
    )
    shapes = shapes_of(network.module, network.size, network.channels)
    params = from_state_dict(state, network.table(network.module), shapes, source)
    return explainee_with(network, params, class_names, link)


def refuse_unsigned(network: Architecture, link: str) -> None:
    """See that a network can say of a class that it is not there, where the link asks that.

    Raises:
      InputError: where it cannot.
    """
    if link == "sigmoid" and not network.module.signed_logits:
        raise InputError(
            f"{network.name} ends in a ReLU, so that no logit is below 0 and a sigmoid holds every "
            "class to be there: take another explainee.name, or explainee.link=softmax"
        )


def explainee_with(
    network: Architecture, params: Variables, class_names: Sequence[str], link: str
) -> Explainee:
    """A network with its variables as a classifier; see `load_explainee`.

    Raises:
      InputError: where the names are not as many as the classes.
    """
    explainee = Explainee(
        apply=network.apply,
        params=jax.tree.map(jnp.asarray, params),
        image_size=network.size,
        num_classes=network.module.num_classes,
        name=network.name,
        class_names=tuple(class_names),
        channels=network.channels,
        link=link,
        features=network.features,
        architecture=network,
    )
    if class_names and len(class_names) != explainee.classes:
        raise InputError(
            f"{len(class_names)} class names for the {explainee.classes} classes of "
            f"{network.name}: give one a class"
        )
    return explainee


def explainee_of(
    function: Callable[[np.ndarray], Any],
    *,
    image_size: tuple[int, int],
    num_classes: int,
    name: str = Explainee.name,
    class_names: Sequence[str] = (),
    channels: int = Explainee.channels,
    link: str = Explainee.link,
) -> Explainee:
    """Any Python function as a classifier: a PyTorch model, a NumPy function, a program elsewhere.

    It can be explained by methods that need no gradients (`ltx_jax.attribute`), and scored. It is
    called on the host, a few images at a time, and here with black and white ones to be checked.

    Args:
      function: images, a NumPy array float32 [n,H,W,C] in [0,1] that is its own, to logits
        [n,num_classes]: an array, or a tensor of PyTorch's. Of each image by itself, and always
        the same: normalisation, evaluation mode and `no_grad` are its own affair.
      image_size: (H, W) in pixels.
      num_classes: length of the logits; with one, the classes are no (0) and yes (1).
      name: for messages and records.
      class_names: one a class, or none.
      channels: of the images.
      link: `softmax`, or `sigmoid` where each class is there or is not.

    Raises:
      InputError: where it fails on images of that size, or gives no finite logits of that shape.
    """
    apply = PythonFunction(function, num_classes)
    explainee = Explainee(
        apply, None, image_size, num_classes, name, tuple(class_names), channels, link
    )
    explainee.check()
    _try_out(apply, explainee)
    return explainee


def _try_out(apply: PythonFunction, explainee: Explainee) -> None:
    """See that a function gives finite logits for black and white, and for black alone the same."""
    name, images = explainee.name, np.zeros((2, *explainee.image_shape), np.float32)
    images[1] = 1
    try:
        both, alone = apply.on_host(images), apply.on_host(images[:1])
    except InputError:
        raise
    except Exception as error:  # whatever the function may raise
        raise InputError(
            f"{name} cannot be applied to images {images.shape} ({in_one_line(error)}): correct "
            "image_size and channels, or the function, which gets NumPy's, channels last"
        ) from error
    if not np.isfinite(both).all():
        raise InputError(
            f"the logits of {name} for a black or a white image are not finite: correct the "
            "function, since masks show what is nearly black"
        )
    explainee.refuse_neighbours(both, alone)


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
