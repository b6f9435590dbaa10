"""Word networks to files and back: safetensors in the original's names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ltx_jax.errors import InputError
from ltx_jax.explainers.word_explainer import WordExplainer
from ltx_jax.explainers.word_network import WordNetwork
from ltx_jax.files import write_bytes
from ltx_jax.models.layers import statistics_of
from ltx_jax.weights.files import read_safetensors, to_safetensors
from ltx_jax.weights.state_dict import flatten, from_state_dict, to_state_dict, unflatten

_FORMAT = "ltx_jax word network"


class Learnt(NamedTuple):
    """Names of concepts: those that a network was told of, and those it was not."""

    supervised: tuple[str, ...]
    unseen: tuple[str, ...]


class SavedWords(NamedTuple):
    """A word network from a file, the explainee that it is for, and its concepts."""

    explainer: WordExplainer
    explainee: str
    learnt: Learnt


def save_words(
    path: Path, explainer: WordExplainer, explainee: str, learnt: Learnt, notes: Mapping[str, str]
) -> None:
    """Write a word network.

    Args:
      path: replaced as a whole, or not at all.
      explainer: with its leaves.
      explainee: name of the network whose features it reads.
      learnt: its concepts.
      notes: more metadata, by name.

    Raises:
      InputError: where the file cannot be written.
    """
    leaves = unflatten(explainer.trained | explainer.statistics)
    metadata = {
        "format": _FORMAT,
        "layer": explainer.layer,
        "width": str(explainer.module.width),
        "explainee": explainee,
        "supervised": json.dumps(learnt.supervised),
        "unseen": json.dumps(learnt.unseen),
    }
    state = to_state_dict(leaves, explainer.module.table())
    write_bytes(path, to_safetensors(state, metadata | dict(notes)))


def load_words(path: str | Path) -> SavedWords:
    """A word network from a file.

    Raises:
      InputError: where it is missing, damaged or no word network.
    """
    state, metadata = read_safetensors(path)
    if metadata.get("format") != _FORMAT:
        raise InputError(
            f"{path} is no word network: give words.safetensors of config.task=train_words"
        )
    try:
        module, channels = WordNetwork(int(metadata["width"])), len(state["fc.0.weight"])
        learnt = Learnt(*(tuple(json.loads(metadata[part])) for part in Learnt._fields))
        layer, explainee = metadata["layer"], metadata["explainee"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error!r}): train it again") from error
    features = jax.ShapeDtypeStruct((2, channels), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), features)
    found = flatten(from_state_dict(state, module.table(), shapes, str(path)))
    leaves = {name: jnp.asarray(leaf) for name, leaf in found.items()}
    statistics = statistics_of(leaves)
    trained = {n: x for n, x in leaves.items() if n not in statistics}
    return SavedWords(WordExplainer(module, layer, trained, statistics), explainee, learnt)
