"""Make the demo of filters in words: a CNN, vectors of names, and the network between them.

    python tools/make_filter_demo.py OUT [--seeds=5]

Takes a quarter of an hour on two CPU cores. The CNN knows thirty concepts. Writes what
`configs/demo_filters.py` takes, and `demo_filters.json`: the recalls of as many word networks as
there are seeds, which differ in all that is drawn (scenes, which concepts are told, parameters),
and of the yardsticks beside them. The bundled network is the first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy.stats import t

from configs import demo_filters
from ltx_jax.data.concepts import COLOURS, CONCEPTS, DIRECTIONS
from ltx_jax.files import read_json, write_json
from ltx_jax.reporting.filters import OURS
from ltx_jax.runtime import prepare
from ltx_jax.settings.configuration import read
from ltx_jax.tasks import explain_filters, train_classifier, train_words

EXPLAINEE, VECTORS, WORDS, FACTS = (
    "demo_filters_explainee.safetensors",
    "demo_filters_vectors.json",
    "demo_filters_words.safetensors",
    "demo_filters.json",
)
# Scenes of the CNN; those of the word networks have the seeds after it.
_SEED = 100
# What shapes and patterns have in common, as a dictionary would say it.
_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "shape": {
        "circle": "round full",
        "square": "cornered full even",
        "triangle": "cornered full pointed",
        "star": "cornered pointed spread",
        "cross": "cornered spread even",
        "hexagon": "cornered round full even",
        "ring": "round hollow",
        "crescent": "round hollow pointed",
        "flower": "round spread",
        "heart": "round pointed full",
    },
    "pattern": {
        "striped": "lines straight",
        "wavy": "lines curved",
        "plain": "bare",
        "checkered": "blocks straight crossing",
        "dotted": "spots curved",
        "hatched": "lines straight crossing",
        "brick": "blocks straight shifted",
        "spiral": "lines curved turning",
    },
}
# How much the kind of a concept, what it shares with others of its kind, and what it shares with
# none count in its vector.
_KIND, _SHARED, _OWN = 1.0, 1.5, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--seeds", type=int, default=5, help="word networks")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("an interval needs two word networks: give --seeds=2 or more")
    prepare()
    make_assets(arguments.out, range(1, arguments.seeds + 1))


def make_assets(out: Path, seeds: Sequence[int]) -> None:
    """Write everything."""
    out.mkdir(parents=True, exist_ok=True)
    write_vectors(out / VECTORS)
    print(train_classifier.run(read(classifying()), out / "classifier"), flush=True)
    (out / EXPLAINEE).write_bytes((out / "classifier" / train_classifier.BEST).read_bytes())
    found = []
    for seed in seeds:
        folder = out / f"words_{seed}"
        print(train_words.run(read(learning(out, seed)), folder), flush=True)
        trained = folder / train_words.BEST
        print(explain_filters.run(read(explaining(out, trained)), folder), flush=True)
        found.append(read_json(folder / "filters.json")["recall"])
        if seed == seeds[0]:
            (out / WORDS).write_bytes(trained.read_bytes())
    recall = over_seeds(found)
    write_json(out / FACTS, {"seeds": list(seeds), "recall": recall})
    print(json.dumps(recall, indent=2))


# --- Words ----------------------------------------------------------------------------------------


def word_vectors() -> dict[str, np.ndarray]:
    """A vector of length 1 for each concept's name: near for what is alike.

    Colours are near as their red, green and blue are, directions as a line's turn by half a circle
    is none, and shapes and patterns by the attributes that they share.
    """
    kinds = {
        "shape": _by_attributes(_ATTRIBUTES["shape"]),
        "pattern": _by_attributes(_ATTRIBUTES["pattern"]),
        "colour": _centred({name: np.array(rgb) for name, rgb in COLOURS.items()}),
        "direction": {
            name: np.array([np.cos(4 * np.pi * turn), np.sin(4 * np.pi * turn)])
            for name, turn in DIRECTIONS.items()
        },
    }
    widths = [1 + len(next(iter(kind.values()))) for kind in kinds.values()]
    vectors, begin = {}, 0
    for kind, width in zip(kinds.values(), widths, strict=True):
        for name, shared in kind.items():
            vector = np.zeros(sum(widths) + len(CONCEPTS))
            vector[begin] = _KIND
            vector[begin + 1 : begin + width] = _SHARED * shared / np.linalg.norm(shared)
            vector[sum(widths) + CONCEPTS.index(name)] = _OWN
            vectors[name] = vector / np.linalg.norm(vector)
        begin += width
    return {name: vectors[name] for name in CONCEPTS}


def write_vectors(path: Path) -> None:
    """As JSON, a word a line."""
    lines = (f'"{name}": {vector.round(4).tolist()}' for name, vector in word_vectors().items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _by_attributes(told: Mapping[str, str]) -> dict[str, np.ndarray]:
    every = sorted({word for words in told.values() for word in words.split()})
    marked = {name: np.array([w in told[name].split() for w in every], float) for name in told}
    return _centred(marked)


def _centred(vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    mean = np.mean(list(vectors.values()), axis=0)
    return {name: vector - mean for name, vector in vectors.items()}


# --- Settings -------------------------------------------------------------------------------------


def classifying() -> ConfigDict:
    """Of the CNN's training, from nothing."""
    config = demo_filters.get_config()
    config.task, config.labels, config.seed, config.limit = "train_classifier", None, _SEED, 5000
    config.explainee.weights = "fresh"
    config.pretrain.update(epochs=12, batch_size=32, learning_rate=2e-3, weight_decay=1e-4)
    config.pretrain.update(
        warmup=0.1, schedule_steps=0, patience=None, plateau=None, validation=0.05
    )
    return config


def learning(out: Path, seed: int) -> ConfigDict:
    """Of a word network's training."""
    config = _with_assets(out)
    config.task, config.seed, config.limit = "train_words", _SEED + seed, 2400
    config.pretrain.update(epochs=8, batch_size=32, learning_rate=1e-3)
    return config


def explaining(out: Path, trained: Path) -> ConfigDict:
    """Of the demo itself, with a word network."""
    config = _with_assets(out)
    config.words.checkpoint = str(trained)
    return config


def _with_assets(out: Path) -> ConfigDict:
    config = demo_filters.get_config()
    config.explainee.weights, config.words.vectors = str(out / EXPLAINEE), str(out / VECTORS)
    return config


# --- What came of it ------------------------------------------------------------------------------


def over_seeds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean recalls over several word networks with 95 % intervals of Student's t, by method, by
    which concepts are asked for, and by how many words count; and how much of the way they come
    from the most frequent words to the highest overlap, a way that is that of the means: where few
    concepts are asked for, the two may lie side by side for a seed."""
    methods = {method: _numbers(found, method) for method in found[0]}
    low, high = methods["most frequent words"], methods["highest overlap"]
    methods["share of the way, %"] = {
        where: 100 * (recalls - low[where]) / (high[where] - low[where]).mean()
        for where, recalls in methods[OURS].items()
    }
    return {
        method: {" @".join(where): _interval(values) for where, values in of_all.items()}
        for method, of_all in methods.items()
    }


def _numbers(found: Sequence[Mapping[str, Any]], method: str) -> dict[tuple[str, str], np.ndarray]:
    return {
        (group, first): np.array([one[method][group][first]["mean"] for one in found])
        for group, of_group in found[0][method].items()
        for first in of_group
    }


def _interval(values: np.ndarray) -> dict[str, float]:
    mean, error = values.mean(), values.std(ddof=1) / len(values) ** 0.5
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return {"mean": round(mean, 1), "low": round(mean - half, 1), "high": round(mean + half, 1)}


if __name__ == "__main__":
    main()
