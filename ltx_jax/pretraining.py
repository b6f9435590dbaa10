"""The `pretrain` task: an explainer for a data set, from its images to a checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ltx_jax import settings
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.data.sources import Source, UnreadableImage, iterate
from ltx_jax.engine.explain import in_groups
from ltx_jax.engine.memory import default_chunk
from ltx_jax.engine.pretrain import (
    PretrainSettings,
    TrainState,
    create_train_state,
    restore_train_state,
    train_step,
    validation_score,
)
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading import SavedOptimizer, load_optimizer, load_trained, save_explainer
from ltx_jax.reporting.files import make_directory, write_json

# The explainer of the best epoch, that of the last one with what resuming needs, and the curves.
BEST, LAST, CURVES = "explainer.safetensors", "last.safetensors", "pretraining.json"


def pretrain(config: ConfigDict, source: Source, models: settings.Models, workdir: Path) -> str:
    """Pretrain the explainer and keep the epoch whose masks have the best validation POS.

    After each epoch the work directory holds all that a restart needs to go on from there.

    Args:
      config: the run's settings.
      source: its images; a share of them is held out for validation.
      models: the explainee, and the explainer to start from.
      workdir: gets `explainer.safetensors` (best), `last.safetensors` and `pretraining.json`.

    Returns:
      One line that says where the explainer is and how good.

    Raises:
      InputError: for too few images, or a directory of another run.
    """
    explainee, explainer = models.explainee, models.explainer
    chosen = config.pretrain
    how = explainee.preprocessing(config.resize)
    training, validation = split_images(source, config)
    per_epoch = len(training) // chosen.batch_size
    plan = settings.pretrain_settings(config, per_epoch * chosen.epochs)
    make_directory(workdir)
    chunk = config.finetune.chunk or default_chunk()
    state, curves = _resume(config, source, explainer, plan, workdir)
    for epoch in range(len(curves["epochs"]), chosen.epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(training).tolist()
        totals = []
        bar = tqdm(total=per_epoch, unit=" batches", desc=f"epoch {epoch}", disable=None)
        for images, labels in batches(source, how, order, chosen.batch_size):
            targets = labels if config.objective.target == "label" else np.full_like(labels, -1)
            state, losses = train_step(state, explainee, explainer, images, targets, plan)
            totals.append(losses)
            bar.update()
        bar.close()
        held_out = (x for x, _ in batches(source, how, validation, chosen.batch_size, rest=True))
        pos = validation_score(explainee, explainer, state.trained, held_out, chunk)
        means = np.mean(np.array(totals, np.float64), axis=0).round(5).tolist()
        curves["epochs"].append({"epoch": epoch, "losses": means, "pos": round(pos, 4)})
        logging.info("epoch %d: loss %.4f, validation POS %.2f", epoch, means[0], pos)
        _save(workdir, explainer, state, plan, curves)
    best = min(curves["epochs"], key=lambda entry: entry["pos"])
    return f"{workdir / BEST}: epoch {best['epoch']}, validation POS {best['pos']:.2f}"


def split_images(source: Source, config: ConfigDict) -> tuple[list[int], list[int]]:
    """Indices to train on and to validate with, drawn by the seed.

    Raises:
      InputError: where a class limit needs labels, or too few images are left for a batch.
    """
    chosen = config.pretrain
    shuffled = np.random.default_rng(config.seed).permutation(len(source)).tolist()
    held_out = max(1, round(chosen.validation * len(source)))
    validation, training = shuffled[:held_out], shuffled[held_out:]
    if chosen.images_per_class:
        training = _per_class(source, training, chosen.images_per_class)
    if len(training) < chosen.batch_size:
        raise InputError(
            f"{len(training)} images to train on do not fill a batch of {chosen.batch_size}: give "
            "more images or set config.pretrain.batch_size lower"
        )
    return training, validation


def batches(
    source: Source, how: Preprocessing, order: Sequence[int], size: int, rest: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Full batches of images [n,H,W,3] in [0,1] with labels [n] (−1 where unknown).

    Images that cannot be read are left out; what does not fill a batch is too, but for `rest`.
    """

    def readable() -> Iterator[tuple[np.ndarray, int]]:
        for row, image in iterate(source, how, order):
            if isinstance(image, UnreadableImage):
                logging.warning("skipped %s: %s", source.names[row], image)
                continue
            label = source.labels[row]
            yield image, -1 if label is None else label[0] if isinstance(label, tuple) else label

    for group in in_groups(readable(), size):
        if rest or len(group) == size:
            images, labels = zip(*group, strict=True)
            yield np.stack(images).astype(np.float32) / 255, np.array(labels, np.int32)


def _per_class(source: Source, candidates: Sequence[int], most: int) -> list[int]:
    taken: dict[Any, int] = {}
    kept = []
    for i in candidates:
        label = source.labels[i]
        if label is None:
            raise InputError(
                f"{source.names[i]} has no label, which config.pretrain.images_per_class needs: "
                "give config.labels or set it to 0"
            )
        if taken.get(label, 0) < most:
            taken[label] = taken.get(label, 0) + 1
            kept.append(i)
    return kept


def _resume(
    config: ConfigDict, source: Source, explainer: Explainer, plan: PretrainSettings, workdir: Path
) -> tuple[TrainState, dict[str, Any]]:
    """The state to go on from and the curves so far."""
    told = settings.pretrain_fingerprint(config, source.names)
    path = workdir / CURVES
    if not path.exists():
        return create_train_state(explainer, plan), {"settings": told, "epochs": []}
    curves = json.loads(path.read_text())
    changed = [key for key in told if curves["settings"].get(key) != told[key]]
    if changed:
        raise InputError(
            f"{workdir} holds a pretraining with other settings ({', '.join(changed)}): use "
            "another work directory"
        )
    saved = load_optimizer(workdir / LAST, explainer)
    trained = load_trained(workdir / LAST, explainer)
    return restore_train_state(trained, saved.moments, saved.step, plan), curves


def _save(
    workdir: Path,
    explainer: Explainer,
    state: TrainState,
    plan: PretrainSettings,
    curves: dict[str, Any],
) -> None:
    moments, count = state.moments()
    optimizer = SavedOptimizer(moments, count, float(plan.schedule(count)))
    if curves["epochs"][-1]["pos"] <= min(entry["pos"] for entry in curves["epochs"]):
        save_explainer(workdir / BEST, explainer, state.trained, optimizer)
    save_explainer(workdir / LAST, explainer, state.trained, optimizer)
    write_json(workdir / CURVES, curves)
