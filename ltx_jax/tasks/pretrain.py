"""The `pretrain` task: an explainer for a data set (the method's first stage)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Float, Int
from optax.tree_utils import tree_get, tree_set

from ltx_jax.data.examples import Source, UnreadableImage, iterate
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.memory import default_chunk
from ltx_jax.engine.pretraining import ltx_loss, validation_score
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate
from ltx_jax.engine.training import (
    TrainState,
    create_train_state,
    data_mesh,
    train_step,
    warmup_then_decay,
)
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves, Moments
from ltx_jax.files import make_directory, write_bytes, write_json
from ltx_jax.loading.checkpoints import (
    SavedOptimizer,
    load_optimizer,
    load_trained,
    read_notes,
    save_explainer,
)
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import Goal
from ltx_jax.progress import progress_bar
from ltx_jax.settings.sections import Pretrain, Settings
from ltx_jax.tasks.inputs import fingerprint as fingerprint_of
from ltx_jax.tasks.inputs import open_explainee, open_network, open_source

# All that a restart goes by; and what is made of it: the explainer of the best epoch, and the
# curves for people.
LAST, BEST, CURVES = "last.safetensors", "explainer.safetensors", "pretraining.json"

# {"epoch": 0, "losses": {"total": …, and each term by its name}, "pos": …}
Epoch = dict[str, Any]


class Images(NamedTuple):
    """The images of a pretraining.

    Attributes:
      source: of all.
      how: they become inputs.
      training, validation: numbers of those to train on and of those held out.
      targets: int32, of each image of the source the class to keep; −1 for the predicted one.
    """

    source: Source
    how: Preprocessing
    training: list[int]
    validation: list[int]
    targets: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Run:
    """What stays as it is from the first epoch to the last.

    Attributes:
      explainee, explainer: on the devices of `mesh`; the explainer without its trained leaves.
      images: what is trained on.
      settings: of the section.
      rates: the learning rate after 0, 1, … steps.
      goal: the objective.
      seed: of the order of the images.
      chunk: most images in one forward of the explainee.
      mesh: the devices.
    """

    explainee: Explainee
    explainer: Explainer
    images: Images
    settings: Pretrain
    rates: Float[np.ndarray, " steps"]
    goal: Goal
    seed: int
    chunk: int
    mesh: Mesh

    def optimizer(self, step: int) -> Partial:
        """AdamW for a step."""
        return Partial(optax.adamw, self.rates[step], weight_decay=self.settings.weight_decay)


class Progress(NamedTuple):
    """Where a pretraining stands between two epochs: `best` are the best epoch's trained leaves."""

    state: TrainState
    best: Leaves
    curves: list[Epoch]


class Pretrained(NamedTuple):
    """The explainer of the best epoch, and what each epoch gave."""

    explainer: Explainer
    curves: list[Epoch]


def pretrain(
    explainee: Explainee,
    explainer: Explainer,
    source: Source,
    settings: Pretrain,
    *,
    goal: Goal,
    target: str = "predicted",
    resize: str = "squash",
    seed: int = 0,
    chunk: int | None = None,
    workdir: Path | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> Pretrained:
    """Pretrain an explainer and keep the epoch whose masks have the best validation POS.

    Args:
      explainee, explainer: the classifier, and the explainer to start from.
      source: images; a share of them is held out for validation.
      settings: of the section.
      goal: the objective.
      target: the class to keep: `predicted`, or `label`, the first one of an image.
      resize: see `Explainee.preprocessing`.
      seed: of the split and of each epoch's order.
      chunk: most images in one forward of the explainee; as many as are of use where not given.
      workdir: gets `explainer.safetensors` (best), `last.safetensors` and `pretraining.json` after
        each epoch; a pretraining that it holds goes on. None writes nothing.
      fingerprint: what determines the result; a directory with another one is refused.

    Raises:
      InputError: for too few images or labels, or a directory of another pretraining.
    """
    images = draw_images(source, settings, explainee, target, resize, seed)
    mesh = data_mesh(settings.batch_size)
    run = Run(
        explainee=replicate(explainee, mesh),
        explainer=replicate(explainer.without_trained(), mesh),
        images=images,
        settings=settings,
        rates=learning_rates(settings, len(images.training)),
        goal=goal,
        seed=seed,
        chunk=chunk or default_chunk(),
        mesh=mesh,
    )
    told = json.loads(json.dumps(dict(fingerprint or {})))
    progress = _start(run, explainer, workdir, told)
    while len(progress.curves) < settings.epochs:
        progress = _one_epoch(run, progress)
        if workdir is not None:
            _save(run, explainer, progress, workdir, told)
    best = jax.tree.map(jnp.asarray, progress.best)
    return Pretrained(replace(explainer, trained=best), progress.curves)


def run(settings: Settings, workdir: Path) -> str:
    """Pretrain the explainer of a configuration; a directory that holds part of it is continued.

    Returns:
      One line that says where the explainer is and how good.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    if jax.process_count() > 1:
        raise InputError("pretraining runs in one process: leave --distributed out")
    source, explainee = open_source(settings), open_explainee(settings)
    made = pretrain(
        explainee,
        open_network(settings, explainee),
        source,
        settings.pretrain,
        goal=make_goal(settings.objective),
        target=settings.target,
        resize=settings.resize,
        seed=settings.seed,
        chunk=settings.finetune.chunk,
        workdir=workdir,
        fingerprint=fingerprint_of(
            settings, source.names, source, (), without=("finetune.", "scores")
        ),
    )
    best = best_of(made.curves)
    return f"{workdir / BEST}: epoch {best['epoch']}, validation POS {best['pos']:.2f}"


def best_of(curves: Sequence[Epoch]) -> Epoch:
    """The epoch with the lowest POS; of several the last."""
    return min(reversed(curves), key=lambda epoch: epoch["pos"])


def learning_rates(settings: Pretrain, images: int) -> Float[np.ndarray, " steps"]:
    """The learning rate after 0, 1, … steps, to the end of a training on so many images."""
    steps = images // settings.batch_size * settings.epochs
    length = settings.schedule_steps or steps
    schedule = warmup_then_decay(settings.learning_rate, int(settings.warmup * length), length)
    # All beforehand: asked for one by one, each would have to wait for the device.
    return np.asarray(jax.jit(schedule)(np.arange(steps + 1, dtype=np.int32)), np.float32)


def draw_images(
    source: Source, settings: Pretrain, explainee: Explainee, target: str, resize: str, seed: int
) -> Images:
    """Draw the images to train on and to validate with, and look up their targets.

    Args:
      source, settings, explainee, target, resize, seed: as `pretrain` takes them.

    Raises:
      InputError: where labels are needed that are missing or no classes of the explainee, or where
        too few images are left for a batch.
    """
    shuffled = np.random.default_rng(seed).permutation(len(source)).tolist()
    held_out = max(1, round(settings.validation * len(source)))
    validation, training = shuffled[:held_out], shuffled[held_out:]
    if settings.images_per_class:
        training = _of_each_class(source, training, settings.images_per_class)
    if len(training) < settings.batch_size:
        raise InputError(
            f"{len(training)} images to train on do not fill a batch of {settings.batch_size}: "
            "give more images or set pretrain.batch_size lower"
        )
    targets = np.full(len(source), -1, np.int32)
    if target == "label":
        targets[training] = [_target(source, i, explainee) for i in training]
    return Images(source, explainee.preprocessing(resize), training, validation, targets)


def batches(images: Images, order: Sequence[int], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of `images` [n,H,W,C] float32 in [0,1] and `targets` [n] int32.

    Images that cannot be read are left out; the last batch may have fewer than `size`.
    """

    def readable() -> Iterator[tuple[np.ndarray, np.int32]]:
        for i, example in iterate(images.source, images.how, order):
            if isinstance(example, UnreadableImage):
                logging.warning("skipped %s: %s", images.source.names[i], example)
            else:
                yield example.as_input(), images.targets[i]

    remaining = readable()
    while group := list(islice(remaining, size)):
        inputs, targets = zip(*group, strict=True)
        yield {"images": np.stack(inputs), "targets": np.array(targets)}


def _of_each_class(source: Source, candidates: Sequence[int], most: int) -> list[int]:
    """The first so many candidates of each class."""
    taken: dict[int, int] = {}
    kept = []
    for i in candidates:
        label = _label(source, i, "pretrain.images_per_class")
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= most:
            kept.append(i)
    return kept


def _target(source: Source, i: int, explainee: Explainee) -> int:
    label = _label(source, i, "target=label")
    if not 0 <= label < explainee.classes:
        raise InputError(
            f"{source.names[i]} has the label {label}: {explainee.name} has classes 0 to "
            f"{explainee.classes - 1}, give one of them"
        )
    return label


def _label(source: Source, i: int, needed_by: str) -> int:
    if not source.labels[i]:
        raise InputError(
            f"{source.names[i]} has no label, which {needed_by} needs: give labels, or leave "
            f"{needed_by} out"
        )
    return source.labels[i][0]


def _one_epoch(run: Run, progress: Progress) -> Progress:
    """A pass through the training images, and the score of the explainer after it."""
    epoch = len(progress.curves)
    state, losses = _trained(run, progress.state, epoch)
    if not np.isfinite(list(losses.values())).all():
        raise InputError(
            f"the loss of epoch {epoch} is no number: set pretrain.learning_rate lower; what the "
            "epochs before it made is kept"
        )
    size = run.settings.batch_size
    held_out = (batch["images"] for batch in batches(run.images, run.images.validation, size))
    pos = validation_score(
        run.explainee, run.explainer, state.params, held_out, size, run.mesh, run.chunk
    )
    logging.info("epoch %d: loss %.4f, validation POS %.2f", epoch, losses["total"], pos)
    means = {name: round(mean, 5) for name, mean in losses.items()}
    curves = [*progress.curves, {"epoch": epoch, "losses": means, "pos": round(pos, 4)}]
    if best_of(curves) is not curves[-1]:
        return Progress(state, progress.best, curves)
    # On the host, and a copy: the next step donates the state.
    return Progress(state, jax.tree.map(np.array, state.params), curves)


def _trained(run: Run, state: TrainState, epoch: int) -> tuple[TrainState, dict[str, float]]:
    """The state after one pass through the training images, and the mean losses of its steps."""
    loss = Partial(ltx_loss, run.explainee, run.explainer, run.goal)
    order = np.random.default_rng([run.seed, epoch]).permutation(run.images.training).tolist()
    size, before = run.settings.batch_size, int(state.step)
    key = jax.random.key(run.seed)
    collected: list[dict[str, Any]] = []
    with progress_bar(len(order) // size, "batches", f"epoch {epoch}") as bar:
        for batch in batches(run.images, order, size):
            if len(batch["targets"]) == size:
                optimizer = run.optimizer(before + len(collected))
                state, metrics = train_step(state, batch, key, loss, optimizer, run.mesh)
                collected.append(metrics)
                bar.update()
    if not collected:
        raise InputError(
            f"the images to train on that can be read do not fill a batch of {size}: give more "
            "images or set pretrain.batch_size lower"
        )
    collected = jax.device_get(collected)
    return state, {
        name: float(np.mean([metrics[name] for metrics in collected], dtype=np.float64))
        for name in collected[0]
    }


def _start(
    run: Run, explainer: Explainer, workdir: Path | None, told: Mapping[str, Any]
) -> Progress:
    """Where the pretraining of the directory stands, or the beginning of one.

    Raises:
      InputError: where the directory cannot be written, or holds another pretraining.
    """
    state = create_train_state(explainer.trained, {}, run.optimizer(0), run.mesh)
    if workdir is None:
        return Progress(state, explainer.trained, [])
    make_directory(workdir)
    last = workdir / LAST
    if not last.exists():
        return Progress(state, explainer.trained, [])
    curves = _known_curves(last, told)
    saved = load_optimizer(last, explainer)
    adam = tree_set(
        state.optimizer_state,
        mu=saved.moments.first,
        nu=saved.moments.second,
        count=jnp.int32(saved.step),
    )
    # Two counters, not one twice: a step donates both.
    state = TrainState(load_trained(last, explainer), {}, adam, jnp.int32(saved.step))
    _derive(workdir, curves, told)
    return Progress(replicate(state, run.mesh), load_trained(workdir / BEST, explainer), curves)


def _known_curves(last: Path, told: Mapping[str, Any]) -> list[Epoch]:
    """The curves so far of a pretraining with the same fingerprint."""
    notes = read_notes(last)
    if "epochs" not in notes:
        raise InputError(f"{last} is of no pretraining that can go on: use another work directory")
    kept = json.loads(notes["fingerprint"])
    changed = sorted(key for key in kept.keys() | told.keys() if kept.get(key) != told.get(key))
    if changed:
        raise InputError(
            f"{last.parent} holds a pretraining with other settings ({', '.join(changed)}): use "
            "another work directory"
        )
    return json.loads(notes["epochs"])


def _save(
    run: Run, explainer: Explainer, progress: Progress, workdir: Path, told: Mapping[str, Any]
) -> None:
    """All that a restart needs in one file, so that it is of one epoch; then what is made of it."""
    state, step = progress.state, int(progress.state.step)
    moments = Moments(*(tree_get(state.optimizer_state, name) for name in ("mu", "nu")))
    optimizer = SavedOptimizer(moments, step, float(run.rates[step]))
    notes = {"fingerprint": json.dumps(told), "epochs": json.dumps(progress.curves)}
    save_explainer(workdir / LAST, explainer, state.params, optimizer, notes)
    _derive(workdir, progress.curves, told)


def _derive(workdir: Path, curves: Sequence[Epoch], told: Mapping[str, Any]) -> None:
    """Bring the other files to where the one file is that a restart goes by."""
    if best_of(curves) is curves[-1]:
        write_bytes(workdir / BEST, (workdir / LAST).read_bytes())
    write_json(workdir / CURVES, {"settings": told, "epochs": curves})
