"""The main command's tasks: each reads a configuration and leaves its results in a directory."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

import ltx_jax
from ltx_jax import settings
from ltx_jax.data.scenes import SceneSource
from ltx_jax.data.sources import Source, UnreadableImage, iterate
from ltx_jax.engine.explain import Explanation, Request, explanations, in_groups, score_pixel_masks
from ltx_jax.engine.finetune import MASKS, FinetuneSettings
from ltx_jax.engine.memory import Layout, lay_out, within_memory
from ltx_jax.errors import InputError
from ltx_jax.explainers.masks import upsample
from ltx_jax.metrics.segmentation import intersection_over_union
from ltx_jax.pretraining import pretrain
from ltx_jax.progress import compile_clock
from ltx_jax.records import Record, record
from ltx_jax.reporting.files import write_json
from ltx_jax.reporting.publish import publish
from ltx_jax.reporting.store import ResultStore
from ltx_jax.reporting.summary import interval, table
from ltx_jax.runtime import share_of_process, together

# Seconds that process 0 waits for the others' next explanation, and between two looks.
_PATIENCE, _POLL = 1800, 2
_LAYOUT = "layout.json"
_FRESH_HEAD = (
    "no explainer checkpoint: the masks start from a mask head that has learnt nothing, and the "
    "results will be poor; pretrain one with --config.task=pretrain and give it with "
    "--config.explainer.checkpoint"
)


class Row(NamedTuple):
    """One explanation of a run: which image, what it is called, which class is asked for."""

    image: int
    name: str
    target: int | None
    label: int | None


class Run(NamedTuple):
    """What a task works with."""

    config: ConfigDict
    source: Source
    models: settings.Models
    rows: list[Row]

    def picture(self, row: int) -> np.ndarray:
        """The image of a row as the explainee sees it, uint8 [H,W,3]."""
        how = self.models.explainee.preprocessing(self.config.resize)
        return self.source.load(self.rows[row].image, how)


def run(config: ConfigDict, workdir: Path) -> str:
    """Carry out the configuration's task in a work directory; returns what to print.

    Raises:
      InputError: for anything in the configuration that cannot be used.
    """
    with together():
        settings.check(config)
        if config.task == "pretrain" and jax.process_count() > 1:
            raise InputError("pretraining runs in one process: leave --distributed out")
        source = settings.load_source(config)
        models = settings.load_models(config)
        rows = [] if config.task == "pretrain" else plan(source, models, config)
    if config.task == "pretrain":
        return pretrain(config, source, models, workdir)
    return explain(Run(config, source, models, rows), workdir)


def plan(source: Source, models: settings.Models, config: ConfigDict) -> list[Row]:
    """The explanations to make: one an image, of its predicted class or its label as the
    configuration says; of an image with several labels one for each of them.

    Raises:
      InputError: where labels are to be explained that are missing or beyond the classes.
    """
    by_label = config.objective.target == "label"
    classes = models.explainee.num_classes
    rows = []
    for i, (name, labels) in enumerate(zip(source.names, source.labels, strict=True)):
        several = labels if isinstance(labels, tuple) else (labels,)
        for label in several:
            if label is not None and not 0 <= label < classes:
                raise InputError(
                    f"the label of {name} is {label}, but {models.explainee.name} has {classes} "
                    "classes: give the labels that belong to the explainee"
                )
            if label is None and by_label:
                raise InputError(
                    f"{name} has no label to explain: give config.labels, or set "
                    "config.objective.target to predicted"
                )
            asked = by_label or isinstance(labels, tuple)
            rows.append(Row(i, name, label if asked else None, label))
    return rows


def explain(job: Run, workdir: Path) -> str:
    """Explain images, each with an explainer finetuned on it (`finetune`), or with the pretrained
    one as it is (`evaluate`). A directory that holds part of the same run is continued.
    """
    config, models = job.config, job.models
    if config.explainer.checkpoint is None:
        logging.warning(_FRESH_HEAD)
    process, processes = jax.process_index(), jax.process_count()
    names = [f"{row.name}:{row.target}" for row in job.rows]
    fingerprint = settings.fingerprint(config, names)
    with compile_clock() as clock:
        with together():
            chosen, start = settings.finetune_settings(config, models.explainer)
            layout = same_layout(job, chosen, -(-len(job.rows) // processes), workdir)
        store = open_store(job, workdir, fingerprint)
        keep_layout(layout, workdir)
        done = store.done
        waiting = [row for row in range(len(job.rows)) if row not in done]
        share, everyones = share_of_process(waiting, len(job.rows))
        began = time.monotonic()
        at_once = layout.slots * layout.mesh.size
        given = requests(job, store, share, ahead=2 * at_once)
        with within_memory(layout.slots):
            found = explanations(*models, layout.settings, given, *layout[1:], start)
            write_rows(job, store, found, len(share), at_once)
        seconds = time.monotonic() - began
    if process > 0:
        return f"process {process} has explained its {len(share)}; process 0 reports"
    if processes > 1:
        await_others(store)
    facts = {"explainee": models.explainee.name, "settings": fingerprint}
    facts |= run_facts(everyones, seconds, clock.seconds)
    with within_memory(layout.slots):
        rivals = {name: score_rival(job, store, name, layout) for name in config.rivals}
    shown = config.report
    summary = publish(store, job.picture, MASKS, facts, rivals, shown.overlays, shown.gallery)
    skipped = f", {summary['skipped']} skipped" if summary["skipped"] else ""
    return (
        f"{table({name: summary[name] for name in MASKS} | rivals)}\n"
        f"{summary['done']} explained{skipped}: {workdir / 'report.html'}"
    )


def same_layout(job: Run, chosen: FinetuneSettings, rows: int, workdir: Path) -> Layout:
    """Slots and chunk as asked for; else those that the run began with on such a device, since
    others would change last digits; else those that are of use and fit.

    Raises:
      InputError: as `lay_out`.
    """
    path = workdir / _LAYOUT
    before = json.loads(path.read_text()) if path.exists() else {}
    began = before.get(jax.local_devices()[0].device_kind, {})
    chosen = replace(chosen, chunk=chosen.chunk or began.get("chunk"))
    slots = job.config.finetune.slots or began.get("slots")
    return lay_out(*job.models, chosen, rows, slots)


def keep_layout(layout: Layout, workdir: Path) -> None:
    """Note the layout in the work directory, for `same_layout` when the run goes on."""
    if jax.process_index() == 0:
        now = {"slots": layout.slots, "chunk": layout.settings.chunk}
        write_json(workdir / _LAYOUT, {jax.local_devices()[0].device_kind: now})


def open_store(job: Run, workdir: Path, fingerprint: dict[str, Any]) -> ResultStore:
    """The run's work directory, which process 0 makes and the others find."""
    given = workdir, fingerprint, len(job.rows), (len(MASKS), *job.models.explainer.grid())
    process, processes = jax.process_index(), jax.process_count()
    if processes == 1:
        return ResultStore.open(*given)
    with together():
        if process == 0:
            ResultStore.open(*given)
    with together():
        return ResultStore.open(*given, process)


def await_others(store: ResultStore) -> None:
    """Wait until every row is done, as long as rows go on coming.

    Raises:
      InputError: where none has come for so long that a process must have been lost.
    """
    known, since = -1, time.monotonic()
    store.read()
    while not store.complete:
        if len(store.done) > known:
            known, since = len(store.done), time.monotonic()
        elif time.monotonic() - since > _PATIENCE:
            raise InputError(
                f"{known} of {store.rows} explanations are done and none has come for "
                f"{_PATIENCE} s: a process was lost; run the command again to do the rest"
            )
        time.sleep(_POLL)
        store.read()


def write_rows(
    job: Run, store: ResultStore, found: Iterable[Explanation], total: int, at_once: int
) -> None:
    """Write explanations to the store as they are finished, as many at once as come together."""
    with tqdm(total=total, unit=" images", disable=None) as bar:
        for group in in_groups(found, at_once):
            store.add({one.row: (entry(job, one), one.masks) for one in group})
            bar.update(len(group))


def entry(job: Run, explanation: Explanation) -> Record:
    """An explanation's record, with the IoU of its masks where the true one is known."""
    row = job.rows[explanation.row]
    made = record(explanation, row.name, explanation.row, job.models.explainee.class_names)
    truth = true_mask(job, explanation.row, explanation.target)
    if truth is not None:
        for mask, pixels in zip(MASKS, upsample(explanation.masks, truth.shape), strict=True):
            made[mask]["iou"] = round(intersection_over_union(pixels, truth), 4)
    return made


def requests(job: Run, store: ResultStore, waiting: Sequence[int], ahead: int) -> Iterator[Request]:
    """The waiting rows with their images, so many read ahead; an image that cannot be read is noted
    and left out."""
    how = job.models.explainee.preprocessing(job.config.resize)
    images = iterate(job.source, how, [job.rows[row].image for row in waiting], ahead)
    for row, (_, image) in zip(waiting, images, strict=True):
        if isinstance(image, UnreadableImage):
            logging.warning("skipped %s: %s", job.rows[row].name, image)
            store.skip(row, job.rows[row].name, str(image))
        else:
            yield Request(row, image, job.rows[row].target, job.rows[row].label)


def true_mask(job: Run, row: int, target: int) -> np.ndarray | None:
    """The pixels [H,W] of the object of a class, where the source knows them and there is one."""
    if not isinstance(job.source, SceneSource):
        return None
    side = job.models.explainee.image_size[0]
    mask = job.source.mask(job.rows[row].image, target, side)
    return mask if mask.any() else None


def score_rival(
    job: Run, store: ResultStore, name: str, layout: Layout
) -> dict[str, dict[str, float]]:
    """A rival method's scores on the rows that were explained: mean and interval of each."""
    batch = layout.slots
    explainee = job.models.explainee
    done = [(line["row"], line["class"]) for line in store.records() if "skipped" not in line]
    values: dict[str, list[float]] = {}
    for part in in_groups(done, batch):
        padded = part + part[-1:] * (batch - len(part))
        images = np.stack([job.picture(row) for row, _ in padded]).astype(np.float32) / 255
        targets = np.array([target for _, target in padded], np.int32)
        masks = settings.RIVALS[name](explainee, images, targets)
        scores = score_pixel_masks(explainee, images, masks, targets, layout.settings.chunk)
        for score, column in scores.items():
            values.setdefault(score, []).extend(np.asarray(column)[: len(part)].tolist())
        for (row, target), mask in zip(part, np.asarray(masks), strict=False):
            if (truth := true_mask(job, row, target)) is not None:
                values.setdefault("iou", []).append(intersection_over_union(mask, truth))
    return {score: interval(np.array(column)) for score, column in values.items()}


def run_facts(images: int, seconds: float, compile_seconds: float) -> dict[str, Any]:
    """What a run cost and what it ran on."""
    devices = jax.local_devices()
    hardware = f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
    if jax.process_count() > 1:
        hardware = f"{jax.process_count()} processes of {hardware}"
    packages = ("jax", "flax", "numpy")
    return {
        "images_per_second": round(images / seconds, 4) if images else None,
        "compile_seconds": round(compile_seconds, 2),
        "device": hardware,
        "versions": {"ltx_jax": ltx_jax.__version__, "python": platform.python_version()}
        | {package: version(package) for package in packages},
    }
