"""Training of any kind: its steps, log and checkpoints, and the epoch that is kept."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float
from optax.tree_utils import tree_get

from ltx_jax.data.batches import Batch, Order, load
from ltx_jax.engine.sharding import replicate, to_host
from ltx_jax.engine.training import (
    TrainState,
    adamw,
    create_train_state,
    is_finite,
    train_step,
    warmup_then_decay,
)
from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Leaves, Moments
from ltx_jax.files import write_json
from ltx_jax.loading.checkpoints import SavedOptimizer
from ltx_jax.progress import Pace, progress_bar
from ltx_jax.runtime import Terminated
from ltx_jax.settings.sections import Pretrain
from ltx_jax.tasks.course import Course, Data
from ltx_jax.tasks.held_out import HeldOut, Judged
from ltx_jax.tasks.training_files import (
    Epoch,
    Keeper,
    Losses,
    Snapshot,
    TrainingFiles,
    best_of,
    falls,
    since_better,
)

# What a plateau leaves of the learning rate.
_FALL = 0.1
# So many steps may be under way before the losses of the first are read: none waits for the host.
_AHEAD = 2
# The scores of the images that were kept from a training.
TEST = "test.json"


@runtime_checkable
class Trainee(Keeper, Protocol):
    """A network that is trained, on the devices but for what it begins with."""

    def begin(self) -> tuple[Leaves, Leaves]:
        """Its trained leaves, and what moves without a gradient, before the first step."""
        ...

    def loss(self) -> Partial:
        """Of a batch, see `engine.training`."""
        ...

    def judge(self, images: HeldOut, trained: Leaves, model_state: Leaves) -> Judged:
        """What it is worth on images held out."""
        ...

    def told(self, scores: Mapping[str, float]) -> str:
        """The scores of an epoch that people look at first."""
        ...


@dataclass(frozen=True)
class Run:
    """What stays as it is from the first step to the last.

    Attributes:
      trainee: what is trained.
      order: of the images to train on.
      held_out: the images to choose the best epoch by.
      settings: of the section.
      rates: the learning rate after 0, 1, … steps, where no plateau lowers it.
    """

    trainee: Trainee
    order: Order
    held_out: HeldOut
    settings: Pretrain
    rates: Float[np.ndarray, " steps"]

    @property
    def steps(self) -> int:
        """Steps there are, where nothing stops it early."""
        return self.order.steps * self.settings.epochs

    def rate(self, step: int, curves: list[Epoch]) -> float:
        """The learning rate of a step after these epochs."""
        rate, plateau = float(self.rates[step]), self.settings.plateau
        if plateau is None:
            return rate
        return rate * _FALL ** falls(curves, self.trainee.select, plateau)

    def optimizer(self, step: int, curves: list[Epoch]) -> Partial:
        """The optimizer of a step after these epochs."""
        settings = self.settings
        return Partial(adamw, self.rate(step, curves), settings.weight_decay, settings.clip)

    def best_of(self, curves: list[Epoch]) -> Epoch:
        """The epoch that is kept of these."""
        return best_of(curves, self.trainee.select)


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
      state: after `step` steps.
      step: taken so far.
      curves: of the epochs that are over.
      best: the trained leaves and the model state after the best of them, on the host.
      sums: of each loss over the steps of this epoch.
      unread: steps whose losses are still to be read, and these.
    """

    state: TrainState
    step: int
    curves: list[Epoch]
    best: tuple[Leaves, Leaves]
    sums: Losses = field(default_factory=dict)
    unread: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)


class Trained(NamedTuple):
    """The leaves and the model state of the best epoch, on the host, what each epoch gave, and the
    best of these."""

    leaves: Leaves
    model_state: Leaves
    curves: list[Epoch]
    best: Epoch


def train(trainee: Trainee, data: Data, course: Course) -> Trained:
    """Train a network and keep the epoch that is best by `trainee.select`.

    Args:
      trainee: what is trained, on the devices of `course.mesh`.
      data: images.
      course: of the training.

    Raises:
      InputError: for a directory of another training, a loss that is no number, a full disk.
      Terminated: where it left.
    """
    settings = course.settings
    order = Order(
        source=data.source,
        how=data.how,
        images=np.array(data.images.training, np.int32),
        targets=data.targets,
        seed=course.seed,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        share=(jax.process_index(), jax.process_count()),
    )
    rates = learning_rates(settings, len(data.images.training))
    size = settings.batch_size // settings.accumulate
    held_out = data.held_out(data.images.validation, size, course.mesh)
    run = Run(trainee, order, held_out, settings, rates)
    opened: AbstractContextManager[TrainingFiles | None] = nullcontext()
    if course.workdir is not None:
        told = json.loads(json.dumps(dict(course.fingerprint or {})))
        about = data.source, data.how, data.images, settings, told
        opened = TrainingFiles(course.workdir, trainee, *about)
    with opened as files:
        progress = _begin(run, files)
        asked = _train(run, progress, files, course.leave)
    if asked:
        raise Terminated
    return Trained(*progress.best, progress.curves, run.best_of(progress.curves))


def keep_test_scores(trainee: Trainee, data: Data, course: Course, made: Trained) -> None:
    """Write what the best epoch is worth on the images that were kept from the training, if any."""
    if course.workdir is None or not data.images.test:
        return
    mesh = course.mesh
    held_out = data.held_out(data.images.test, mesh.size, mesh)
    best = replicate((made.leaves, made.model_state), mesh)
    try:
        scores = trainee.judge(held_out, *best).scores  # all processes share it
    except InputError as error:  # the training itself is done
        logging.warning("no %s: %s", TEST, error)
        return
    if jax.process_index() == 0:
        write_json(course.workdir / TEST, scores)


def learning_rates(settings: Pretrain, images: int) -> Float[np.ndarray, " steps"]:
    """The learning rate after 0, 1, … steps, to the end of a training on so many images."""
    steps = images // settings.batch_size * settings.epochs
    length = settings.schedule_steps or steps
    schedule = warmup_then_decay(settings.learning_rate, int(settings.warmup * length), length)
    # All beforehand: asked for one by one, each would have to wait for the device.
    return np.asarray(jax.jit(schedule)(np.arange(steps + 1, dtype=np.int32)), np.float32)


def _begin(run: Run, files: TrainingFiles | None) -> Progress:
    """The beginning of a training, or where that of the directory stands.

    Raises:
      InputError: where the directory holds another one.
    """
    mesh, beginning = run.held_out.mesh, run.trainee.begin()
    state = create_train_state(*beginning, run.optimizer(0, []), mesh, run.settings.sharded)
    found = None if files is None else files.restore(state, mesh)
    if files is None or found is None:
        return Progress(state, 0, [], beginning)
    step = int(found.state.step)
    progress = Progress(found.state, step, found.curves, beginning, found.sums)
    if found.curves:
        progress.best = _best(run, progress, files)
    return progress


def _best(run: Run, progress: Progress, files: TrainingFiles) -> tuple[Leaves, Leaves]:
    """The trained leaves and the model state of the best epoch so far, whose file is made anew
    where it may be missing.

    Raises:
      InputError: where nothing holds them.
    """
    best, then = run.best_of(progress.curves), progress
    # What is written after a checkpoint may be missing.
    if best["step"] != progress.step:
        if known := files.best():
            return known
        curves = [epoch for epoch in progress.curves if epoch["step"] <= best["step"]]
        state = files.state_of(best, progress.state, run.held_out.mesh)
        then = replace(progress, state=state, step=best["step"], curves=curves)
    snapshot = _snapshot(run, then)
    files.keep_best(snapshot)
    return snapshot.trained, snapshot.model_state


def _train(
    run: Run,
    progress: Progress,
    files: TrainingFiles | None,
    leave: Callable[[int], bool],
) -> bool:
    """Take the steps that are left; returns whether it was asked to leave before.

    Raises:
      InputError: where a loss is no number, or the disk does not take a checkpoint.
    """
    pace, asked = Pace(run.order.batch_size), False
    with (
        progress_bar(run.steps, "steps", run.trainee.name, progress.step) as bar,
        closing(load(run.order, progress.step, run.settings.workers)) as batches,
    ):
        while not (_is_over(run, progress) or asked):
            with pace.waiting():
                batch = next(batches)
            _take_step(run, progress, batch)
            asked = leave(progress.step)
            ended = progress.step % run.order.steps == 0
            due = asked or ended or progress.step % (run.settings.save_every or run.steps) == 0
            _read_losses(run, progress, files, pace, unread=0 if due else _AHEAD)
            if due and not is_finite(progress.state.params):
                _refuse(run, progress.step, "what is trained")
            if ended:
                _end_epoch(run, progress, files)
            if due and files is not None:
                files.save(progress.state, progress.step, progress.curves, progress.sums)
            bar.update()
    return asked


def _is_over(run: Run, progress: Progress) -> bool:
    """Whether all steps are taken, or the epochs have not become better for long."""
    curves, patience = progress.curves, run.settings.patience
    if progress.step == run.steps:
        return True
    if patience is None or not curves or curves[-1]["step"] != progress.step:
        return False
    return since_better(curves, run.trainee.select, run.settings.least_better) >= patience


def _take_step(run: Run, progress: Progress, batch: Batch) -> None:
    """One step, whose losses are read later."""
    for name, reason in batch.skipped:
        logging.warning("skipped %s: %s", name, reason)
    progress.state, metrics = train_step(
        progress.state,
        {"images": batch.images, "targets": batch.targets},
        jax.random.key(run.order.seed),
        run.trainee.loss(),
        run.optimizer(progress.step, progress.curves),
        run.held_out.mesh,
        parts=run.settings.accumulate,
        sharded=run.settings.sharded,
    )
    progress.step += 1
    progress.unread.append((progress.step, metrics))


def _read_losses(
    run: Run, progress: Progress, files: TrainingFiles | None, pace: Pace, unread: int
) -> None:
    """Read the losses of steps, but for so many of the last.

    Raises:
      InputError: where one is no number.
    """
    while len(progress.unread) > unread:
        step, metrics = progress.unread.popleft()
        losses = {name: float(loss) for name, loss in jax.device_get(metrics).items()}
        if not np.isfinite(list(losses.values())).all():
            _refuse(run, step, "the loss")
        for name, loss in losses.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + loss
        pace.step()
        if files is not None and step % run.settings.log_every == 0:
            epoch, rate = (step - 1) // run.order.steps, run.rate(step - 1, progress.curves)
            files.log(step, {"epoch": epoch, "rate": rate, "loss": losses, **pace.told()})


def _refuse(run: Run, step: int, what: str) -> NoReturn:
    """Say that something is no number after a step, before it is kept."""
    epoch, within = divmod(step - 1, run.order.steps)
    first = run.order.source.names[run.order.numbers(step - 1)[0]]
    raise InputError(
        f"{what} is no number after batch {within} of epoch {epoch} (from {first} on): set "
        "pretrain.learning_rate lower, and use another work directory; the checkpoints before it "
        "are kept"
    )


def _end_epoch(run: Run, progress: Progress, files: TrainingFiles | None) -> None:
    """Judge what is trained after an epoch, and keep it where it is the best so far."""
    state = progress.state
    judged = run.trainee.judge(run.held_out, state.params, state.model_state)
    if not all(np.isfinite(mask).all() for mask in judged.masks.values()):
        _refuse(run, progress.step, "a mask")
    epoch = len(progress.curves)
    losses = {name: round(total / run.order.steps, 5) for name, total in progress.sums.items()}
    scores = {name: round(score, 4) for name, score in judged.scores.items()}
    told = {"epoch": epoch, "step": progress.step, "losses": losses, "scores": scores}
    shown = run.trainee.told(scores)
    logging.info("epoch %d: loss %.4f, validation %s", epoch, losses["total"], shown)
    progress.curves, progress.sums = [*progress.curves, told], {}
    best = _snapshot(run, progress) if run.best_of(progress.curves) is told else None
    if best is not None:
        progress.best = best.trained, best.model_state
    if files is not None:
        files.log(progress.step, {"epoch": epoch, "validation": scores})
        files.end_epoch(progress.curves, best, judged.masks)


def _snapshot(run: Run, progress: Progress) -> Snapshot:
    """The state on the host: a copy, since the next step donates it."""
    state, step = progress.state, progress.step
    moments = (tree_get(state.optimizer_state, name) for name in ("mu", "nu"))
    trained, model_state, first, second = to_host((state.params, state.model_state, *moments))
    rate = run.rate(step, progress.curves)
    optimizer = SavedOptimizer(Moments(first, second), step, rate)
    return Snapshot(trained, model_state, optimizer)
