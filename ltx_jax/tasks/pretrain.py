"""The `pretrain` task: an explainer for a data set (the method's first stage)."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float
from optax.tree_utils import tree_get

from ltx_jax.data.batches import Batch, Order, load
from ltx_jax.data.examples import Source
from ltx_jax.engine.memory import default_chunk
from ltx_jax.engine.pretraining import ltx_loss
from ltx_jax.engine.recipe import make_goal
from ltx_jax.engine.sharding import replicate, to_host
from ltx_jax.engine.training import (
    TrainState,
    adamw,
    create_train_state,
    data_mesh,
    is_finite,
    train_step,
    warmup_then_decay,
)
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves, Moments
from ltx_jax.loading.checkpoints import SavedOptimizer
from ltx_jax.models.explainee import Explainee
from ltx_jax.objectives import Goal
from ltx_jax.progress import Pace, progress_bar
from ltx_jax.runtime import Terminated, termination_held
from ltx_jax.settings.sections import Pretrain, Settings
from ltx_jax.tasks.held_out import HeldOut, judge
from ltx_jax.tasks.inputs import fingerprint as fingerprint_of
from ltx_jax.tasks.inputs import open_explainee, open_network, open_source
from ltx_jax.tasks.pretraining_files import (
    BEST,
    Epoch,
    Losses,
    PretrainingFiles,
    Snapshot,
    best_of,
)
from ltx_jax.tasks.training_images import split, targets_of

# So many steps may be under way before the losses of the first are read: none waits for the host.
_AHEAD = 2


@dataclass(frozen=True)
class Run:
    """What stays as it is from the first step to the last.

    Attributes:
      explainee, explainer: on the devices; the explainer without its trained leaves.
      order: of the images to train on.
      held_out: the images to choose the best epoch by.
      settings: of the section.
      rates: the learning rate after 0, 1, … steps.
      goal: the objective.
    """

    explainee: Explainee
    explainer: Explainer
    order: Order
    held_out: HeldOut
    settings: Pretrain
    rates: Float[np.ndarray, " steps"]
    goal: Goal

    @property
    def steps(self) -> int:
        """Steps there are, where nothing stops it early."""
        return self.order.steps * self.settings.epochs

    def optimizer(self, step: int) -> Partial:
        """The optimizer of a step."""
        settings = self.settings
        return Partial(adamw, float(self.rates[step]), settings.weight_decay, settings.clip)

    def best_of(self, curves: list[Epoch]) -> Epoch:
        """The epoch that is kept of these."""
        return best_of(curves, self.settings.select)


@dataclass
class Progress:
    """Where a pretraining stands.

    Attributes:
      state: after `step` steps.
      step: taken so far.
      curves: of the epochs that are over.
      best: the trained leaves after the best of them, on the host.
      sums: of each loss over the steps of this epoch.
      unread: steps whose losses are still to be read, and these.
    """

    state: TrainState
    step: int
    curves: list[Epoch]
    best: Leaves
    sums: Losses = field(default_factory=dict)
    unread: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)


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
    leave: Callable[[int], bool] = lambda _: False,
) -> Pretrained:
    """Pretrain an explainer and keep the epoch whose masks are best by `settings.select`.

    Args:
      explainee, explainer: the classifier, and the explainer to start from.
      source: images; some of them are held out.
      settings: of the section.
      goal: the objective.
      target: the class to keep: `predicted`, or `label`, the first one of an image.
      resize: see `Explainee.preprocessing`.
      seed: of the split and of each epoch's order.
      chunk: most images in one forward of the explainee; as many as are of use where not given.
      workdir: gets the best explainer, checkpoints, log and page, see `PretrainingFiles`; a
        pretraining that it holds goes on. None writes nothing.
      fingerprint: what determines the result; a directory with another one is refused.
      leave: asked after each step whether to save and leave, see `termination_held`.

    Raises:
      InputError: for too few images or labels, or a directory of another pretraining.
      Terminated: where it left.
    """
    images, how = split(source, settings, seed), explainee.preprocessing(resize)
    size = settings.batch_size // settings.accumulate
    mesh = data_mesh(size)
    order = Order(
        source=source,
        how=how,
        images=np.array(images.training, np.int32),
        targets=targets_of(source, images.training, target, explainee),
        seed=seed,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        share=(jax.process_index(), jax.process_count()),
    )
    run = Run(
        explainee=replicate(explainee, mesh),
        explainer=replicate(explainer.without_trained(), mesh),
        order=order,
        held_out=HeldOut(source, how, images.validation, size, mesh, chunk or default_chunk()),
        settings=settings,
        rates=learning_rates(settings, len(images.training)),
        goal=replicate(goal, mesh),
    )
    opened: AbstractContextManager[PretrainingFiles | None] = nullcontext()
    if workdir is not None:
        told = json.loads(json.dumps(dict(fingerprint or {})))
        opened = PretrainingFiles(workdir, explainer, source, how, images, settings, told)
    with opened as files:
        progress = _begin(run, explainer, files)
        asked = _train(run, progress, files, leave)
    if asked:
        raise Terminated
    best = jax.tree.map(jnp.asarray, progress.best)
    return Pretrained(replace(explainer, trained=best), progress.curves)


def run(settings: Settings, workdir: Path) -> str:
    """Pretrain the explainer of a configuration; a directory that holds part of it is continued.

    Returns:
      One line that says where the explainer is and how good.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    source, explainee = open_source(settings), open_explainee(settings)
    with termination_held() as leave:
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
            leave=leave,
        )
    best = best_of(made.curves, settings.pretrain.select)
    told = ", ".join(f"{name.upper()} {best['scores'][name]:.2f}" for name in ("pos", "neg"))
    return f"{workdir / BEST}: epoch {best['epoch']}, validation {told}"


def learning_rates(settings: Pretrain, images: int) -> Float[np.ndarray, " steps"]:
    """The learning rate after 0, 1, … steps, to the end of a training on so many images."""
    steps = images // settings.batch_size * settings.epochs
    length = settings.schedule_steps or steps
    schedule = warmup_then_decay(settings.learning_rate, int(settings.warmup * length), length)
    # All beforehand: asked for one by one, each would have to wait for the device.
    return np.asarray(jax.jit(schedule)(np.arange(steps + 1, dtype=np.int32)), np.float32)


def _begin(run: Run, explainer: Explainer, files: PretrainingFiles | None) -> Progress:
    """The beginning of a pretraining, or where that of the directory stands.

    Raises:
      InputError: where the directory holds another one.
    """
    mesh = run.held_out.mesh
    state = create_train_state(explainer.trained, {}, run.optimizer(0), mesh, run.settings.sharded)
    found = None if files is None else files.restore(state, mesh)
    if files is None or found is None:
        return Progress(state, 0, [], explainer.trained)
    step = int(found.state.step)
    progress = Progress(found.state, step, found.curves, explainer.trained, found.sums)
    if found.curves and run.best_of(found.curves)["step"] == step:
        # What is written after a checkpoint may be missing.
        files.keep_best(_snapshot(run, progress))
    if found.curves:
        progress.best = files.best()
    return progress


def _train(
    run: Run,
    progress: Progress,
    files: PretrainingFiles | None,
    leave: Callable[[int], bool],
) -> bool:
    """Take the steps that are left; returns whether it was asked to leave before.

    Raises:
      InputError: where a loss is no number, or the disk does not take a checkpoint.
    """
    pace, asked = Pace(run.order.batch_size), False
    with (
        progress_bar(run.steps, "steps", "pretraining", progress.step) as bar,
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
    return len(curves) - 1 - int(run.best_of(curves)["epoch"]) >= patience


def _take_step(run: Run, progress: Progress, batch: Batch) -> None:
    """One step, whose losses are read later."""
    for name, reason in batch.skipped:
        logging.warning("skipped %s: %s", name, reason)
    progress.state, metrics = train_step(
        progress.state,
        {"images": batch.images, "targets": batch.targets},
        jax.random.key(run.order.seed),
        Partial(ltx_loss, run.explainee, run.explainer, run.goal),
        run.optimizer(progress.step),
        run.held_out.mesh,
        parts=run.settings.accumulate,
        sharded=run.settings.sharded,
    )
    progress.step += 1
    progress.unread.append((progress.step, metrics))


def _read_losses(
    run: Run, progress: Progress, files: PretrainingFiles | None, pace: Pace, unread: int
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
            about = {"epoch": (step - 1) // run.order.steps, "rate": float(run.rates[step - 1])}
            files.log(step, {**about, "loss": losses, **pace.told()})


def _refuse(run: Run, step: int, what: str) -> NoReturn:
    """Say that something is no number after a step, before it is kept."""
    epoch, within = divmod(step - 1, run.order.steps)
    first = run.order.source.names[run.order.numbers(step - 1)[0]]
    raise InputError(
        f"{what} is no number after batch {within} of epoch {epoch} (from {first} on): set "
        "pretrain.learning_rate lower, and use another work directory; the checkpoints before it "
        "are kept"
    )


def _end_epoch(run: Run, progress: Progress, files: PretrainingFiles | None) -> None:
    """Judge the explainer after an epoch, and keep it where it is the best so far."""
    judged = judge(run.held_out, run.explainee, run.explainer, progress.state.params)
    if not all(np.isfinite(mask).all() for mask in judged.masks.values()):
        _refuse(run, progress.step, "a mask")
    epoch = len(progress.curves)
    losses = {name: round(total / run.order.steps, 5) for name, total in progress.sums.items()}
    scores = {name: round(score, 4) for name, score in judged.scores.items()}
    told = {"epoch": epoch, "step": progress.step, "losses": losses, "scores": scores}
    logging.info(
        "epoch %d: loss %.4f, validation POS %.2f, NEG %.2f",
        *(epoch, losses["total"], scores["pos"], scores["neg"]),
    )
    progress.curves, progress.sums = [*progress.curves, told], {}
    best = _snapshot(run, progress) if run.best_of(progress.curves) is told else None
    if best is not None:
        progress.best = best.trained
    if files is not None:
        files.log(progress.step, {"epoch": epoch, "validation": scores})
        files.end_epoch(progress.curves, best, judged.masks)


def _snapshot(run: Run, progress: Progress) -> Snapshot:
    """The state on the host: a copy, since the next step donates it."""
    state, step = progress.state, progress.step
    moments = (tree_get(state.optimizer_state, name) for name in ("mu", "nu"))
    trained, first, second = to_host((state.params, *moments))
    optimizer = SavedOptimizer(Moments(first, second), step, float(run.rates[step]))
    return Snapshot(trained, optimizer)
