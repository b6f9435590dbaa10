"""The work directory of a pretraining: what it goes on from, and what people look at."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ltx_jax.data.examples import Source, UnreadableImage
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.checkpoints import Checkpoints, newest
from ltx_jax.engine.training import TrainState
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.files import make_directory, write_bytes, write_json
from ltx_jax.loading.checkpoints import SavedOptimizer, load_trained, save_explainer
from ltx_jax.reporting.store import hold_settings
from ltx_jax.reporting.training_log import TrainingLog
from ltx_jax.reporting.training_page import PAGE, Watched, write_training_page
from ltx_jax.settings.sections import Pretrain
from ltx_jax.tasks.training_images import Split, keep_split

# The explainer of the best epoch, the curves for programs, the masks of the images that are
# watched [epochs,k,g,h], and what a restart goes by.
BEST, CURVES, MASKS = "explainer.safetensors", "pretraining.json", "validation_masks.npy"
CHECKPOINTS = "checkpoints"
_OLD_FORM = "last.safetensors"
# Of the settings, what an explainer is trained for; its file tells it.
_PURPOSE = ("objective", "target", "explainee.name")

# {"epoch": 0, "step": 94, "losses": {"total": …, and each term}, "scores": {"pos": …}}
Epoch = dict[str, Any]
# By name.
Losses = dict[str, float]


# What ranks an epoch by its scores, the best one lowest, by `pretrain.select`.
_RANKS: dict[str, Callable[[Mapping[str, float]], float]] = {
    "pos": lambda scores: scores["pos"],
    "neg": lambda scores: -scores["neg"],
    "last": lambda scores: 0.0,
}


def best_of(curves: Sequence[Epoch], select: str) -> Epoch:
    """The best epoch by a score of the images held out; of several the last.

    Args:
      curves: of all epochs.
      select: `pos`, the lowest; `neg`, the highest; or `last`.
    """
    return min(reversed(curves), key=lambda epoch: _RANKS[select](epoch["scores"]))


class Snapshot(NamedTuple):
    """The trained leaves after an epoch, and the optimizer's state, on the host."""

    trained: Leaves
    optimizer: SavedOptimizer


class Restored(NamedTuple):
    """What a checkpoint holds: the state, the epochs so far, and of the one under way the sum of
    each loss over its steps."""

    state: TrainState
    curves: list[Epoch]
    sums: Losses


class PretrainingFiles:
    """What is written of a pretraining as it goes on, by process 0 but for the checkpoints."""

    def __init__(
        self,
        workdir: Path,
        explainer: Explainer,
        source: Source,
        how: Preprocessing,
        images: Split,
        settings: Pretrain,
        told: Mapping[str, Any],
    ) -> None:
        """Begin the directory of a pretraining, or find it.

        Raises:
          InputError: where it cannot be written, or is of another pretraining.
        """
        if (workdir / _OLD_FORM).exists():
            raise InputError(
                f"{workdir} holds a pretraining of an older version ({_OLD_FORM}): use another "
                "work directory"
            )
        self._workdir, self._settings, self._told = workdir, settings, told
        self._explainer, self._source, self._how = explainer, source, how
        self._watched = images.validation[: settings.pictures]
        self._first = jax.process_index() == 0
        if self._first:
            make_directory(workdir)
            hold_settings(workdir, told)
            keep_split(workdir, source, images)
        self._checkpoints: Checkpoints | None = None
        self._log: TrainingLog | None = None
        self._masks: list[np.ndarray] = []

    def restore(self, template: TrainState, mesh: Mesh) -> Restored | None:
        """Where the pretraining stands, on the devices of the template; None at its beginning.

        Raises:
          InputError: where it was another explainer's, or nothing can be read.
        """
        found = newest(self._workdir / CHECKPOINTS, template, mesh)
        restored = None if found is None else Restored(found[0], **found[1])
        step, epochs = (int(restored.state.step), len(restored.curves)) if restored else (0, 0)
        self._checkpoints = Checkpoints(self._workdir / CHECKPOINTS, self._settings.keep)
        if self._first:
            self._log = TrainingLog(self._workdir, step, self._settings.tensorboard)
            self._masks = self._known_masks(epochs)
        return restored

    def best(self) -> Leaves:
        """The trained leaves of the best epoch so far.

        Raises:
          InputError: where they are gone.
        """
        return load_trained(self._workdir / BEST, self._explainer)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Tell of a step."""
        if self._log is not None:
            self._log.add(step, values)

    def save(self, state: TrainState, step: int, curves: list[Epoch], sums: Losses) -> None:
        """Begin to write a checkpoint."""
        at_end = bool(curves) and curves[-1]["step"] == step
        score = _RANKS[self._settings.select](curves[-1]["scores"]) if at_end else None
        assert self._checkpoints is not None, "restore comes first"
        self._checkpoints.save(step, state, {"curves": curves, "sums": sums}, score)

    def end_epoch(
        self, curves: list[Epoch], best: Snapshot | None, masks: Mapping[int, np.ndarray]
    ) -> None:
        """Write what people look at after an epoch.

        Args:
          curves: of all epochs so far.
          best: of the last one, where it is the best.
          masks: token masks of the images held out.
        """
        if not self._first:
            return
        self.keep_best(best)
        self._keep_masks(masks)
        write_json(self._workdir / CURVES, {"settings": self._told, "epochs": curves})
        if self._log is not None:
            self._log.tabulate()
        write_training_page(self._workdir / PAGE, curves, self._shown(), self._told)

    def keep_best(self, best: Snapshot | None) -> None:
        """Write the explainer of the best epoch, where there is a better one."""
        if best is not None and self._first:
            purpose = {name: v for name, v in self._told.items() if name.startswith(_PURPOSE)}
            notes = {"trained_for": json.dumps(purpose)}
            path = self._workdir / BEST
            save_explainer(path, self._explainer, best.trained, best.optimizer, notes)

    def __enter__(self) -> PretrainingFiles:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all is written, however it ended.

        Raises:
          InputError: where the disk does not take it.
        """
        if self._log is not None:
            self._log.close()
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _keep_masks(self, masks: Mapping[int, np.ndarray]) -> None:
        """Add those of the images that are watched; zeros of one that cannot be read."""
        nothing = np.zeros_like(next(iter(masks.values())))
        watched = [masks.get(i, nothing) for i in self._watched]
        self._masks.append(np.array(watched))
        content = io.BytesIO()
        np.save(content, np.stack(self._masks))
        write_bytes(self._workdir / MASKS, content.getvalue())

    def _known_masks(self, epochs: int) -> list[np.ndarray]:
        path = self._workdir / MASKS
        if not epochs:
            return []
        try:
            return list(np.load(path)[:epochs])
        except Exception as error:
            raise InputError(
                f"{path} is gone or damaged: put it back, or use another work directory"
            ) from error

    def _shown(self) -> list[Watched]:
        found = []
        for k, i in enumerate(self._watched):
            try:
                picture = self._source.load(i, self._how).as_picture()
            except UnreadableImage:
                continue
            masks = np.stack([of_epoch[k] for of_epoch in self._masks])
            found.append(Watched(self._source.names[i], picture, masks))
        return found
