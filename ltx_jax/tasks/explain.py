"""The task `explain`: each image with an explainer finetuned on it, scored, beside its rivals."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltx_jax.data.examples import UnreadableImage
from ltx_jax.engine.explain import Explanation, Request, Skip, explanations
from ltx_jax.engine.finetune import Start
from ltx_jax.engine.memory import Layout, lay_out, within_memory
from ltx_jax.engine.recipe import Recipe, Resumed, make_recipe
from ltx_jax.engine.scoring import in_groups
from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.files import read_json, write_json
from ltx_jax.loading.checkpoints import load_optimizer
from ltx_jax.masks.soft import parts_of
from ltx_jax.progress import compile_clock, progress_bar
from ltx_jax.reporting.publish import publish
from ltx_jax.reporting.records import record
from ltx_jax.reporting.store import ResultStore
from ltx_jax.reporting.summary import table
from ltx_jax.runtime import share_of_process, together
from ltx_jax.settings.sections import Finetune, Objective, Settings
from ltx_jax.tasks.inputs import Work, examples, fingerprint_of_work, open_explainer, open_work
from ltx_jax.tasks.rivals import add_rival, check_rivals
from ltx_jax.tasks.scoring import explained
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
        """The mask that is the result: the last, or the one that a score selects."""
        return "final" if self.recipe.method.optimize is None else "selected"


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
      InputError: for an unknown term, or a checkpoint without optimizer state.
    """
    start, resumed = None, None
    if finetune.resume and checkpoint is not None:
        assert isinstance(explainer, Explainer)
        saved = load_optimizer(checkpoint, explainer)
        start = Start(saved.moments, jnp.int32(saved.step))
        resumed = Resumed(saved.step, saved.learning_rate)
    return Job(work, explainer, make_recipe(finetune, objective, seed, resumed), start)


def explain(
    job: Job,
    waiting: Sequence[int],
    layout: Layout,
    skip: Skip,
) -> Iterator[Explanation]:
    """Explain the waiting rows of a job; yields them as they finish.

    Args:
      job: what, and how.
      waiting: its rows that are to be explained.
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


def requests(work: Work, waiting: Sequence[int], skip: Skip, ahead: int) -> Iterator[Request]:
    """The waiting rows with their images, so many read ahead; those that cannot be read are left
    out."""
    for row, example in zip(waiting, examples(work, waiting, ahead), strict=True):
        if isinstance(example, UnreadableImage):
            skip(row, str(example))
        else:
            yield Request(row, example, work.rows[row].target, work.rows[row].label)


# --- The command ----------------------------------------------------------------------------------


def run(settings: Settings, workdir: Path) -> str:
    """Explain the images of a configuration; a directory that holds part of the same run is
    continued.

    Returns:
      What to print.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    with compile_clock() as clock:
        with together():
            job = open_job(settings)
            told = fingerprint_of_work(settings, job.work)
            done = len(ResultStore.seen(workdir, told, len(job.work.rows)).done)
            layout = layout_for_missing(job, settings.finetune.slots, workdir, done)
        cells: tuple[int, ...] = job.explainer.grid()
        grid, raw = cells, None
        if job.recipe.method.optimize is None:
            grid, raw = parts_of(cells, job.work.explainee.image_size), cells
        held = dict.fromkeys(job.recipe.method.masks, grid)
        store = open_store(workdir, told, len(job.work.rows), held, raw)
        began = time.monotonic()
        images = explain_missing(job, store, layout) if layout else 0
        await_rows(store.lines, store.rows)
        seconds = time.monotonic() - began
        for name in settings.rivals:
            asked = explained(store.records())
            add_rival(job.work, store, name, asked, settings.finetune.chunk)
    if jax.process_index() > 0:
        return f"process {jax.process_index()} has done its share; process 0 reports"
    done = len(explained(store.records()))
    for name in settings.rivals:
        await_rows(store.scored(name), done)
    facts = {"explainee": job.work.explainee.name, "settings": told}
    facts |= run_facts(images, seconds, clock.seconds)
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


def layout_for_missing(job: Job, slots: int | None, workdir: Path, done: int) -> Layout | None:
    """How to lay out the rows that the directory has not, before anything is written to it; None
    where it has all.

    Raises:
      InputError: as `lay_out`.
    """
    rows = len(job.work.rows)
    if done == rows:
        return None
    return same_layout(job, slots, -(-rows // jax.process_count()), workdir)


def explain_missing(job: Job, store: ResultStore, layout: Layout) -> int:
    """Explain this process's share of the rows that are not done yet; returns how many fell to all
    processes together."""
    done = store.done
    missing = [row for row in range(store.rows) if row not in done]
    share, everyones = share_of_process(missing, store.rows)
    keep_layout(layout, store.directory)
    rows, classes = job.work.rows, job.work.explainee.class_names

    def skip(row: int, reason: str) -> None:
        logging.warning("skipped %s: %s", rows[row].name, reason)
        store.skip(row, rows[row].name, reason)

    found = explain(job, share, layout, skip)
    with progress_bar(len(share), "images") as bar:
        for group in in_groups(found, layout.slots * layout.mesh.size):
            store.add(
                {
                    one.row: (record(one, rows[one.row].name, one.row, classes), one.masks)
                    for one in group
                },
                {one.row: one.raw for one in group},
            )
            bar.update(len(group))
    return everyones


def report(job: Job, store: ResultStore, settings: Settings, facts: dict[str, Any]) -> str:
    """Publish what is stored; returns what to print."""
    work = job.work

    def picture(row: int) -> np.ndarray:
        return work.source.load(work.rows[row].image, work.how).as_picture()

    summary = publish(store, picture, job.shown, facts, settings.rivals, settings.report)
    skipped = f", {summary['skipped']} skipped" if summary["skipped"] else ""
    methods = {name: summary[name] for name in job.recipe.method.masks} | summary.get("rivals", {})
    return (
        f"{table(methods)}\n{summary['done']} explained{skipped}: {store.directory / 'report.html'}"
    )


def same_layout(job: Job, slots: int | None, rows: int, workdir: Path) -> Layout:
    """Slots and chunk as asked for; else those that the run began with on such a device, since
    others would change last digits; else those that are of use and fit.

    Raises:
      InputError: as `lay_out`.
    """
    began = _layouts(workdir).get(jax.local_devices()[0].device_kind, {})
    recipe = job.recipe.with_chunk(job.recipe.method.chunk or began.get("chunk"))
    return lay_out(job.work.explainee, job.explainer, recipe, rows, slots or began.get("slots"))


def keep_layout(layout: Layout, workdir: Path) -> None:
    """Note the layout in the work directory, beside those of other kinds of devices, for
    `same_layout` when the run goes on."""
    if jax.process_index() == 0:
        now = {"slots": layout.slots, "chunk": layout.recipe.method.chunk}
        kind = jax.local_devices()[0].device_kind
        write_json(workdir / _LAYOUT, _layouts(workdir) | {kind: now})


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


def run_facts(images: int, seconds: float, compile_seconds: float) -> dict[str, Any]:
    """What a run cost and what it ran on; nothing of the cost where nothing was left to do.

    Args:
      images: explained by all processes together.
      seconds: until the last of them had explained its share.
      compile_seconds: of this process.
    """
    devices = jax.local_devices()
    hardware = f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
    if jax.process_count() > 1:
        hardware = f"{jax.process_count()} processes of {hardware}"
    packages = ("ltx_jax", "jax", "flax", "numpy")
    return {
        "images_per_second": round(images / seconds, 4) if images else None,
        "compile_seconds": round(compile_seconds, 2) if images else None,
        "device": hardware,
        "versions": {package: version(package) for package in packages}
        | {"python": platform.python_version()},
    }
