"""Train a classifier on: on images with a cell deleted, or on shuffled labels.

python tools/finetune_classifier.py OUT.safetensors --config=configs/cifar_vit_direct.py \
    --config.images=… --config.indices=0:3000 --test=3000:3200 [--epochs=3] [--shuffle-labels]

What single cells (`single_cell`) say of a mask is in-domain only for a classifier that has met
images without one of 4×4 cells (IDSDS, Hesse, Schaub-Meyer & Roth, NeurIPS 2024): each image is
shown as it is, or with one cell black, as often. With --shuffle-labels, images stay whole, and each
gets the label of another: for `tools/randomise.py`. Starts from the configuration's weights, trains
all of them but running statistics, and prints after each epoch the accuracy on the images that it
learns and on those of --test, whole and with a cell black. An image with several labels is to have
them all alike.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import app, flags
from demo_training import rates_of
from jax import Array
from jax.tree_util import Partial
from jaxtyping import Float, UInt8
from ml_collections import config_flags
from safetensors.numpy import save

from ltx_jax.data.examples import UnreadableImage, iterate
from ltx_jax.engine.sharding import replicate
from ltx_jax.engine.training import create_train_state, data_mesh, train_step, warmup_then_decay
from ltx_jax.errors import InputError
from ltx_jax.files import write_bytes
from ltx_jax.masks.covering import covered
from ltx_jax.metrics.grid import cells_of
from ltx_jax.metrics.single_cell import SIDE
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.layers import as_input
from ltx_jax.progress import progress_bar
from ltx_jax.runtime import prepare
from ltx_jax.settings.configuration import read
from ltx_jax.settings.sections import Settings
from ltx_jax.tasks.inputs import open_explainee, open_source, plan
from ltx_jax.weights.state_dict import to_state_dict


@dataclass(frozen=True)
class Training:
    """How the classifier is trained on.

    Attributes:
      epochs: passes over the images.
      learning_rate: AdamW's highest.
      batch_size: images in a step.
      delete_cells: whether every other image lacks a cell.
      seed: of the order of images, and of the cells.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    delete_cells: bool
    seed: int


class Labelled(NamedTuple):
    """Images, and what share of the answer each class should get (rows sum to 1)."""

    images: UInt8[np.ndarray, "n H W C"]
    shares: Float[np.ndarray, "n classes"]


def define_flags() -> None:
    """The command's, defined as it is run: other programs have some of the same name."""
    config_flags.DEFINE_config_file("config", None, "A file of configs/.", lock_config=True)
    flags.DEFINE_string("test", None, "The slice of the images that accuracy is told of.")
    flags.DEFINE_integer("epochs", 3, "Passes over the images.", lower_bound=1)
    flags.DEFINE_float("learning-rate", 1e-4, "AdamW's highest.", lower_bound=0)
    flags.DEFINE_integer("batch-size", 50, "Images in a step.", lower_bound=1)
    flags.DEFINE_bool("shuffle-labels", False, "Learn other images' labels.")


def main(argv: Sequence[str]) -> int:
    """Train and write; 2 where something given cannot be used."""
    prepare()
    given = flags.FLAGS.flag_values_dict()
    try:
        if given["config"] is None or given["test"] is None or len(argv) != 2:
            raise InputError("expected OUT.safetensors, a --config and --test=START:STOP")
        settings = read(given["config"])
        explainee = open_explainee(settings)
        if not explainee.single:
            raise InputError(
                f"{explainee.name} holds each class to be there or not, and one is learnt to be "
                "the answer: leave config.explainee.link=sigmoid out"
            )
        learnt = load(settings, explainee)
        test = load(dataclasses.replace(settings, indices=given["test"]), explainee)
        if given["shuffle-labels"]:
            order = np.random.default_rng(settings.seed).permutation(len(learnt.shares))
            learnt = learnt._replace(shares=learnt.shares[order])
        training = Training(
            given["epochs"],
            given["learning-rate"],
            given["batch-size"],
            not given["shuffle-labels"],
            settings.seed,
        )
        trained = train(explainee, learnt, test, training)
        network = explainee.architecture
        assert network is not None
        state = to_state_dict(trained.params, network.table(network.module))
        write_bytes(Path(argv[1]), save(state))
    except InputError as error:
        print(f"finetune_classifier: {error}", file=sys.stderr)
        return 2
    return 0


def load(settings: Settings, explainee: Explainee) -> Labelled:
    """All images of a configuration that can be read, in memory.

    Raises:
      InputError: where there is none, or one has no label, or one beyond the classes.
    """
    source, how = open_source(settings), explainee.preprocessing(settings.resize)
    plan(source, explainee)
    found = [e for _, e in iterate(source, how, range(len(source)))]
    examples = [e for e in found if not isinstance(e, UnreadableImage)]
    if not examples or not all(e.labels for e in examples):
        raise InputError(
            f"{len(examples)} images can be read, and not all have a label: give config.labels"
        )
    shares = np.zeros((len(examples), explainee.classes), np.float32)
    for row, example in zip(shares, examples, strict=True):
        row[list(example.labels)] = 1 / len(set(example.labels))
    return Labelled(np.stack([e.as_picture() for e in examples]), shares)


def train(explainee: Explainee, learnt: Labelled, test: Labelled, training: Training) -> Explainee:
    """The explainee after so many epochs."""
    size = min(training.batch_size, len(learnt.images))
    per_epoch = len(learnt.images) // size
    mesh, steps = data_mesh(size), per_epoch * training.epochs
    schedule = warmup_then_decay(training.learning_rate, steps // 10, steps)
    rates = rates_of(schedule, steps)
    loss = Partial(
        functools.partial(cross_entropy, delete_cells=training.delete_cells),
        replicate(explainee, mesh),
    )
    state = create_train_state(explainee.params["params"], {}, Partial(optax.adamw, rates[0]), mesh)
    rng, key = np.random.default_rng(training.seed), jax.random.key(training.seed)
    for epoch in range(training.epochs):
        order = rng.permutation(len(learnt.images))
        with progress_bar(per_epoch, "steps", f"epoch {epoch + 1}") as bar:
            for step in range(per_epoch):
                chosen = order[step * size : (step + 1) * size]
                batch = {"images": learnt.images[chosen], "shares": learnt.shares[chosen]}
                optimizer = Partial(optax.adamw, rates[epoch * per_epoch + step])
                state, _ = train_step(state, batch, key, loss, optimizer, mesh)
                bar.update(1)
        explainee = _with(explainee, jax.device_get(state.params))
        found = accuracies(explainee, learnt, test)
        told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.items())
        print(f"epoch {epoch + 1}: {told}", flush=True)
    return explainee


def cross_entropy(
    explainee: Explainee,
    params: Any,
    model_state: Any,
    batch: Mapping[str, Array],
    rng: Array,
    delete_cells: bool,
) -> tuple[Array, tuple[dict[str, Array], Any]]:
    """With the shares that each class should get, for `train_step`; every other image without one
    of its cells where they are to be deleted."""
    images = as_input(batch["images"])
    if delete_cells:
        images = without_cell(images, jax.random.randint(rng, (len(images),), 0, 2 * SIDE**2))
    logits = _with(explainee, params)(images)
    loss = optax.softmax_cross_entropy(logits, batch["shares"]).mean()
    return loss, ({}, model_state)


def without_cell(images: Float[Array, "n H W C"], cell: Array) -> Float[Array, "n H W C"]:
    """Each image with one cell of its grid black, or as it is for a cell that there is not."""
    _, height, width, _ = images.shape
    return covered(images, cells_of(height, width, SIDE)[None] != cell[:, None, None])


def accuracies(explainee: Explainee, learnt: Labelled, test: Labelled) -> dict[str, float]:
    """Shares of the images whose most likely class is among their labels."""
    whole = np.full(len(test.images), SIDE**2, np.int32)
    one = np.random.default_rng(0).integers(0, SIDE**2, len(test.images), np.int32)
    return {
        "learnt": _accuracy(explainee, learnt, np.full(len(learnt.images), SIDE**2, np.int32)),
        "test": _accuracy(explainee, test, whole),
        "test without a cell": _accuracy(explainee, test, one),
    }


def _accuracy(explainee: Explainee, labelled: Labelled, cells: np.ndarray) -> float:
    hits = []
    for first in range(0, len(cells), 100):
        part = slice(first, first + 100)
        found = np.asarray(_answers(explainee, labelled.images[part], cells[part]))
        hits.append(np.take_along_axis(labelled.shares[part], found[:, None], 1)[:, 0] > 0)
    return float(np.concatenate(hits).mean())


@jax.jit
def _answers(explainee: Explainee, images: Array, cells: Array) -> Array:
    return explainee(without_cell(as_input(images), cells)).argmax(-1)


def _with(explainee: Explainee, params: Any) -> Explainee:
    return dataclasses.replace(explainee, params={**explainee.params, "params": params})


if __name__ == "__main__":
    define_flags()
    app.run(main)
