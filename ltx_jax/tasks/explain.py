"""The task `explain`: a mask optimised for each image and class, scored, beside its rivals."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import tee
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltx_jax import __version__
from ltx_jax.data.examples import UnreadableImage
from ltx_jax.engine.explain import Explanation, Request, Skip, explanations
from ltx_jax.engine.finetune import Start
from ltx_jax.engine.memory import Layout, lay_out, within_memory
from ltx_jax.engine.recipe import Recipe, Resumed, make_recipe, result_of
from ltx_jax.engine.scoring import in_groups
from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.one_class import OneClass
from ltx_jax.files import read_json, write_json
from ltx_jax.loading.checkpoints import load_optimizer
from ltx_jax.masks.soft import parts_of
from ltx_jax.progress import compile_clock, progress_bar
from ltx_jax.reporting.publish import publish
from ltx_jax.reporting.records import record
from ltx_jax.reporting.store import ResultStore
from ltx_jax.reporting.summary import table
from ltx_jax.runtime import together
from ltx_jax.settings.sections import Finetune, Objective, Settings
from ltx_jax.tasks.inputs import (
    Work,
    examples,
    fingerprint_of_work,
    open_explainer,
    open_work,
    picture_of,
)
from ltx_jax.tasks.rivals import add_rival, check_rivals
from ltx_jax.tasks.scoring import explained
from ltx_jax.tasks.team import ALONE, Team
from ltx_jax.tasks.waiting import await_rows, open_store

_LAYOUT = "layout.json"
_FRESH_HEAD = (
    "no explainer checkpoint: the masks start from a mask head that has learnt nothing, and the "
    "results will be poor; pretrain one with --config.task=pretrain and give it with "
    "--config.explainer.checkpoint"
)


class Job(NamedTuple):
    """What is to be explained, by what, how, and the optimizer's state that it starts with."""

    work: Work
    explainer: Drawer
    recipe: Recipe
    start: Start | None

    @property
    def shown(self) -> str:
        """The mask that is the result."""
        return result_of(self.recipe.masks)


def make_job(
    work: Work,
    explainer: Drawer,
    finetune: Finetune,
    objective: Objective,
    seed: int = Settings.seed,
    checkpoint: str | Path | None = None,
) -> Job:
    """A job as settings describe it.

    Args:
      work, explainer, finetune, objective: its parts.
      seed: of what is drawn on the way.
      checkpoint: whose optimizer is resumed where `finetune.resume` says so.

    Raises:
      InputError: for an unknown term, a checkpoint without optimizer state, or one of masks for
        every class, whose state is not of the one that is finetuned.
    """
    start, resumed = None, None
    if finetune.resume and checkpoint is not None:
        if isinstance(explainer, OneClass):
            raise InputError(
                f"{checkpoint} has a mask for each of {explainer.every.classes} classes, and "
                "config.finetune.resume takes up the optimizer of a single mask: leave it out"
            )
        assert isinstance(explainer, Explainer)
        saved = load_optimizer(checkpoint, explainer)
        start = Start(saved.moments, jnp.int32(saved.step))
        resumed = Resumed(saved.step, saved.learning_rate)
    return Job(work, explainer, make_recipe(finetune, objective, seed, resumed), start)


def explain(
    job: Job,
    waiting: Iterable[int],
    layout: Layout,
    skip: Skip,
) -> Iterator[Explanation]:
    """Explain the waiting rows of a job; yields them as they finish.

    Args:
      job: what, and how.
      waiting: its rows that are to be explained, drawn as they are read ahead.
      layout: slots and devices.
      skip: told of each row that cannot be explained, since its image cannot be read or the
        explainee gives no numbers for it, and why.

    Raises:
      InputError: where memory runs out, or the explainee gives no numbers for a black image.
    """
    given = requests(job.work, waiting, skip, ahead=2 * layout.slots * layout.mesh.size)
    with within_memory(layout.slots):
        yield from explanations(
            job.work.explainee,
            job.explainer,
            layout.recipe,
            given,
            layout.slots,
            layout.mesh,
            job.start,
            job.work.scores,
            skip,
        )


def requests(work: Work, waiting: Iterable[int], skip: Skip, ahead: int) -> Iterator[Request]:
    """The waiting rows with their images, so many read ahead; those that cannot be read are left
    out."""
    rows, waiting = tee(waiting)
    for row, example in zip(rows, examples(work, waiting, ahead), strict=True):
        if isinstance(example, UnreadableImage):
            skip(row, str(example))
        else:
            yield Request(row, example, work.rows[row].target, work.rows[row].label)


# --- The command ----------------------------------------------------------------------------------


def run(settings: Settings, workdir: Path, team: Team = ALONE) -> str:
    """Explain the images of a configuration; a directory that holds part of the same run is
    continued.

    Args:
      settings: of the configuration.
      workdir: of the run.
      team: the processes that share it.

    Returns:
      What to print.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    with compile_clock() as clock:
        with together():
            job = open_job(settings)
            told = fingerprint_of_work(settings, job.work)
            rows = len(job.work.rows)
            choose = partial(same_layout, job, settings.finetune.slots, rows, team.count, workdir)
            # Before anything is written; None where nothing is left to do.
            layout = None if len(ResultStore.seen(workdir, told, rows).done) == rows else choose()
        cells: tuple[int, ...] = job.explainer.grid()
        grid, raw = cells, None
        if job.recipe.method.optimize is None:
            grid, raw = parts_of(cells, job.work.explainee.image_size), cells
        held = dict.fromkeys(job.recipe.masks, grid)
        store = open_store(workdir, told, rows, team.number, held, raw)
        began, images = time.monotonic(), 0
        if layout:
            with team.noting() as ours:
                layout = keep_layout(layout, choose, workdir) if ours else layout
            images = explain_missing(job, store, layout, team)
        await_rows(range(rows), store.lines.learn)
        seconds = time.monotonic() - began
        asked, done = explained(store.records()), {}
        for name in settings.rivals:
            done[name] = add_rival(job.work, store, name, asked, settings.finetune.chunk, team)
    if elsewhere := team.farewell():
        return elsewhere
    for name in settings.rivals:
        await_rows([one.row for one in asked], done[name])
    facts = {"explainee": job.work.explainee.name, "settings": told}
    facts |= run_facts(images, seconds, clock.seconds, team.count)
    return report(job, store, settings, facts)


def open_job(settings: Settings) -> Job:
    """The job of a configuration."""
    work, given = open_work(settings), settings.explainer
    check_rivals(settings.rivals, work.explainee)
    if given.trained != "mask" and given.checkpoint is None:
        logging.warning(_FRESH_HEAD)
    explainer = open_explainer(settings, work.explainee)
    how = settings.finetune, settings.objective, settings.seed
    return make_job(work, explainer, *how, given.checkpoint)


def explain_missing(job: Job, store: ResultStore, layout: Layout, team: Team) -> int:
    """Explain this process's share of the rows that are not done yet; returns how many these are
    for all processes together."""
    there = store.done
    missing = [row for row in range(store.rows) if row not in there]
    rows, classes = job.work.rows, job.work.explainee.class_names

    def skip(row: int, reason: str) -> None:
        if row not in store.lines.learn():
            logging.warning("skipped %s: %s", rows[row].name, reason)
            store.skip(row, rows[row].name, reason)

    def keep(group: list[Explanation]) -> None:
        """But those that another process has done meanwhile: the first result stands."""
        there = store.lines.learn()
        new = [one for one in group if one.row not in there]
        known = {one.row: record(one, rows[one.row].name, one.row, classes) for one in new}
        raw = {one.row: one.raw for one in new}
        store.add({one.row: (known[one.row], one.masks) for one in new}, raw)

    dealt = team.dealt(missing, store.rows)
    with progress_bar(-(-len(missing) // team.count), "images") as bar:
        for share in team.shares("images", dealt, store.lines.learn):
            found = explain(job, share, layout, skip)
            for group in in_groups(found, layout.slots * layout.mesh.size):
                keep(group)
                bar.update(len(group))
    return len(missing)


def report(job: Job, store: ResultStore, settings: Settings, facts: dict[str, Any]) -> str:
    """Publish what is stored; returns what to print."""
    picture = partial(picture_of, job.work)
    summary = publish(store, picture, job.shown, facts, settings.rivals, settings.report)
    skipped = f", {summary['skipped']} skipped" if summary["skipped"] else ""
    methods = {name: summary[name] for name in job.recipe.masks} | summary.get("rivals", {})
    return (
        f"{table(methods)}\n{summary['done']} explained{skipped}: {store.directory / 'report.html'}"
    )


def same_layout(job: Job, slots: int | None, rows: int, processes: int, workdir: Path) -> Layout:
    """How each of so many processes lays out a run of so many rows. Slots and chunk as asked for;
    else those that the run began with on such a device, since others would change last digits; else
    those that are of use and fit.

    Raises:
      InputError: as `lay_out`.
    """
    began = _layouts(workdir).get(jax.local_devices()[0].device_kind, {})
    recipe = job.recipe.with_chunk(job.recipe.method.chunk or began.get("chunk"))
    share = -(-rows // processes)
    return lay_out(job.work.explainee, job.explainer, recipe, share, slots or began.get("slots"))


def keep_layout(layout: Layout, choose: Callable[[], Layout], workdir: Path) -> Layout:
    """Note the layout in the work directory, beside those of other kinds of devices, for
    `same_layout` when the run goes on; returns the one that is noted.

    Args:
      layout: that was chosen.
      choose: chooses anew, where another process has noted its own since.
      workdir: of the run.
    """
    kind, noted = jax.local_devices()[0].device_kind, _layouts(workdir)
    if kind in noted and noted[kind] != _note_of(layout):
        layout = choose()
    write_json(workdir / _LAYOUT, noted | {kind: _note_of(layout)})
    return layout


def _note_of(layout: Layout) -> dict[str, Any]:
    return {"slots": layout.slots, "chunk": layout.recipe.method.chunk}


def _layouts(workdir: Path) -> dict[str, Any]:
    path = workdir / _LAYOUT
    remedy = "take it away, and slots are chosen anew, which may change last digits"
    found = read_json(path, remedy) if path.exists() else {}
    if not isinstance(found, dict) or not all(map(_is_layout, found.values())):
        raise InputError(f"{path} is damaged: {remedy}")
    return found


def _is_layout(noted: Any) -> bool:
    """Whether it is as `keep_layout` writes it."""

    def counts(value: Any) -> bool:
        return type(value) is int and value > 0

    match noted:
        case {"slots": slots, "chunk": chunk, **others}:
            return counts(slots) and (chunk is None or counts(chunk)) and not others
    return False


def run_facts(
    images: int, seconds: float, compile_seconds: float, processes: int
) -> dict[str, Any]:
    """What a run cost and what it ran on; nothing of the cost where nothing was left to do.

    Args:
      images: explained by all processes together.
      seconds: until the last of them had explained its share.
      compile_seconds: of this process.
      processes: that share the run.
    """
    devices = jax.local_devices()
    hardware = f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
    if processes > 1:
        hardware = f"{processes} processes of {hardware}"
    versions = {package: version(package) for package in ("jax", "flax", "numpy")}
    return {
        "images_per_second": round(images / seconds, 4) if images else None,
        "compile_seconds": round(compile_seconds, 2) if images else None,
        "device": hardware,
        # Of this package by itself: it also runs where it is not installed.
        "versions": {"ltx_jax": __version__, **versions, "python": platform.python_version()},
    }
