"""Classifiers to be trained, from weights or from nothing, and to files."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ltx_jax.files import write_bytes
from ltx_jax.loading.explainees import (
    computing,
    explainee_with,
    fitted,
    published,
    refuse_unsigned,
)
from ltx_jax.models.architecture import Architecture
from ltx_jax.models.classifier import Classifier
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import architecture
from ltx_jax.settings.sections import Network
from ltx_jax.weights.files import read_safetensors, to_safetensors
from ltx_jax.weights.state_dict import (
    Leaves,
    StateDict,
    Variables,
    flatten,
    from_state_dict,
    shapes_of,
    to_state_dict,
    unflatten,
)

# What `explainee.weights` is where a network starts from nothing.
FRESH = "fresh"
_PARAMETERS = "params/"


def classifier_from(
    given: Network,
    *,
    compute_dtype: str,
    attention: str,
    class_names: Sequence[str],
    seed: int,
) -> tuple[Classifier, Explainee]:
    """A classifier as the settings describe it, before it is trained.

    Args:
      given: the section; of weights for another number of classes, the classifier's own layers are
        drawn anew, and all are where they are `fresh`.
      compute_dtype, attention, class_names: see `load_explainee`.
      seed: of what is drawn.

    Returns:
      The classifier, and the same as an explainee.

    Raises:
      InputError: as `load_explainee`; or for a network that cannot say that a class is not there.
    """
    network = computing(architecture(given.name, **given.sizes), compute_dtype, attention)
    refuse_unsigned(network, given.link)
    if given.weights == FRESH:
        state, source = _drawn(network, seed), "fresh weights"
    else:
        state, source = published(network, given.weights, "config.explainee.weights")
    known = [name for name, size in given.sizes.items() if size is not None]
    network, state = fitted(network, state, known)
    shapes = shapes_of(network.module, network.size, network.channels)
    if not _head_fits(network, state, shapes):
        logging.info("%s: its classifier is drawn anew, for %s", source, network.module.num_classes)
        head = network.classifier
        fresh = {n: x for n, x in _drawn(network, seed).items() if n.startswith(head)}
        state = {**{n: x for n, x in state.items() if not n.startswith(head)}, **fresh}
    variables = from_state_dict(state, network.table(network.module), shapes, source)
    explainee = explainee_with(network, variables, class_names, given.link)
    return _parted(network, variables, given.link, given.trained), explainee


def save_classifier(path: Path, classifier: Classifier, notes: Mapping[str, str]) -> None:
    """Write a classifier as a safetensors file in timm's names, which `load_explainee` takes.

    Args:
      path: replaced as a whole, or not at all.
      classifier: with its leaves.
      notes: more metadata, by name.

    Raises:
      InputError: where the file cannot be written.
    """
    network = classifier.architecture
    leaves = unflatten({**classifier.frozen, **classifier.trained})
    metadata = {
        "format": "ltx_jax classifier",
        "classifier": network.name,
        "link": classifier.link,
        "sizes": json.dumps(network.sizes, default=np.generic.item),
    }
    state = to_state_dict(leaves, network.table(network.module))
    write_bytes(path, to_safetensors(state, metadata | dict(notes)))


def load_classifier(path: Path, like: Classifier) -> Classifier:
    """The same network with the weights of a file.

    Raises:
      InputError: where it is missing, or of another network.
    """
    network = like.architecture
    shapes = shapes_of(network.module, network.size, network.channels)
    state, _ = read_safetensors(path)
    variables = from_state_dict(state, network.table(network.module), shapes, str(path))
    leaves = flatten(variables)
    trained, frozen = (
        {name: leaves[name] for name in part} for part in (like.trained, like.frozen)
    )
    return replace(like, trained=trained, frozen=frozen)


def _parted(network: Architecture, variables: Variables, link: str, part: str) -> Classifier:
    """A classifier of which all is trained, or its own layers alone."""
    heads = {
        entry.path
        for entry in network.table(network.module)
        if entry.names[0].startswith(network.classifier)
    }
    leaves = {path: jnp.asarray(leaf) for path, leaf in flatten(variables).items()}

    def is_trained(path: str) -> bool:
        return path.startswith(_PARAMETERS) and (part == "all" or path in heads)

    trained: Leaves = {path: leaf for path, leaf in leaves.items() if is_trained(path)}
    return Classifier(network, link, trained, {p: x for p, x in leaves.items() if p not in trained})


def _head_fits(network: Architecture, state: StateDict, shapes: Variables) -> bool:
    """Whether the tensors of the classifier's own layers are there, and of its shapes."""
    leaves = flatten(shapes)
    for entry in network.table(network.module):
        name = entry.names[0]
        if name.startswith(network.classifier):
            wanted = leaves[entry.path].shape
            if name not in state or state[name].size != np.prod(wanted):
                return False
    return True


def _drawn(network: Architecture, seed: int) -> StateDict:
    """A state dict as the network's initialisers draw it."""
    image = jnp.zeros((1, *network.size, network.channels), jnp.float32)
    variables = jax.jit(network.module.init)(jax.random.key(seed), image)
    return to_state_dict(variables, network.table(network.module))
