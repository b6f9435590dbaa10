"""The work directory of a training: what it goes on from, and what people look at."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from ltx_jax.data.examples import Source, UnreadableImage
from ltx_jax.data.preprocessing import Preprocessing
from ltx_jax.engine.checkpoints import Checkpoints, newest, of_step
from ltx_jax.engine.training import TrainState
from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Leaves
from ltx_jax.files import make_directory, write_bytes, write_json
from ltx_jax.loading.checkpoints import SavedOptimizer
from ltx_jax.metrics import SCORES
from ltx_jax.reporting.store import hold_settings
from ltx_jax.reporting.training_log import TrainingLog
from ltx_jax.reporting.training_page import Watched, write_training_page
from ltx_jax.runtime import all_managed, together
from ltx_jax.settings.sections import Pretrain
from ltx_jax.tasks.training_images import Split, keep_split

# The masks of the images that are watched [epochs,k,g,h], and what a restart goes by.
MASKS, CHECKPOINTS = "validation_masks.npy", "checkpoints"
_OLD_FORM = "last.safetensors"
# Of the settings, what a network is trained for; its file tells it.
_PURPOSE = ("objective", "class_masks", "target", "explainee.name")

# {"epoch": 0, "step": 94, "losses": {"total": …, and each term}, "scores": {"pos": …}}
Epoch = dict[str, Any]
# By name.
Losses = dict[str, float]


# What ranks an epoch by its scores, the best one lowest, by `pretrain.select`.
_RANKS: dict[str, Callable[[Mapping[str, float]], float]] = {
    "pos": lambda scores: scores["pos"],
    "neg": lambda scores: -scores["neg"],
    "loss": lambda scores: scores["loss"],
    "last": lambda scores: 0.0,
}


def best_of(curves: Sequence[Epoch], select: str) -> Epoch:
    """The best epoch by a score of the images held out; of several the last.

    Args:
      curves: of all epochs.
      select: `pos` or `loss`, the lowest; `neg`, the highest; or `last`.
    """
    return min(reversed(curves), key=lambda epoch: _RANKS[select](epoch["scores"]))


def told_of(path: Path, best: Epoch, names: Iterable[str]) -> str:
    """One line that says where a trained network is and how good.

    Args:
      path: of its file.
      best: the epoch that was kept.
      names: of the scores to tell.
    """
    titles = {name: SCORES[name].title if name in SCORES else name for name in names}
    scores = [f"{t.replace('_', ' ')} {best['scores'][name]:.4g}" for name, t in titles.items()]
    return f"{path}: epoch {best['epoch']}, validation {', '.join(scores)}"


def chosen_select(settings: Pretrain, *judged_by: str) -> str:
    """What chooses the epoch.

    Args:
      settings: of the section.
      judged_by: the scores that a training has of images held out, the usual one first.

    Raises:
      InputError: for a score that it has not.
    """
    chosen = settings.select or judged_by[0]
    if chosen not in (*judged_by, "last"):
        raise InputError(
            f"pretrain.select is {chosen}, which this training is not judged by: set it to "
            f"{', '.join(judged_by)} or last, or leave it out"
        )
    return chosen


def since_better(curves: Sequence[Epoch], select: str, least: float) -> int:
    """How many epochs at the end were none that is better than the best before it.

    Args:
      curves, select: as of `best_of`.
      least: by how much it has to be, of the score.
    """
    best, since = float("inf"), 0
    for epoch in curves:
        rank = _RANKS[select](epoch["scores"])
        best, since = (rank, 0) if rank < best - least else (best, since + 1)
    return since


def falls(curves: Sequence[Epoch], select: str, plateau: int) -> int:
    """How often `plateau` epochs in a row, each counted once, were no better than the best before
    them (PyTorch's `ReduceLROnPlateau`, without its threshold).

    Args:
      curves, select: as of `best_of`.
      plateau: at least 1.
    """
    best, since, found = float("inf"), 0, 0
    for epoch in curves:
        rank = _RANKS[select](epoch["scores"])
        best, since = (rank, 0) if rank < best else (best, since + 1)
        if since == plateau:
            since, found = 0, found + 1
    return found


class Snapshot(NamedTuple):
    """What is trained after an epoch, on the host: its leaves, what moved without a gradient, and
    the optimizer's state."""

    trained: Leaves
    model_state: Leaves
    optimizer: SavedOptimizer


@runtime_checkable
class Keeper(Protocol):
    """Of a network that is trained, what its work directory knows."""

    @property
    def name(self) -> str:
        """Of the training: `NAME.json` has its curves, `NAME.html` is its page."""
        ...

    @property
    def file(self) -> str:
        """What the network of the best epoch is called."""
        ...

    @property
    def draws(self) -> bool:
        """Whether it draws masks, which the page shows."""
        ...

    @property
    def select(self) -> str:
        """What chooses the epoch, see `best_of`."""
        ...

    def save(self, path: Path, kept: Snapshot, notes: Mapping[str, str]) -> None:
        """Write the network to a file, with notes by name in its metadata."""
        ...

    def load(self, path: Path) -> tuple[Leaves, Leaves]:
        """Its trained leaves and model state from such a file."""
        ...


class Restored(NamedTuple):
    """What a checkpoint holds: the state, the epochs so far, and of the one under way the sum of
    each loss over its steps."""

    state: TrainState
    curves: list[Epoch]
    sums: Losses


class TrainingFiles:
    """What is written of a training as it goes on, by process 0 but for the checkpoints."""

    def __init__(
        self,
        workdir: Path,
        keeper: Keeper,
        source: Source,
        how: Preprocessing,
        images: Split,
        settings: Pretrain,
        told: Mapping[str, Any],
    ) -> None:
        """Begin the directory of a training, or find it.

        Raises:
          InputError: where it cannot be written, or is of another training; in every process.
        """
        if (workdir / _OLD_FORM).exists():
            raise InputError(
                f"{workdir} holds a pretraining of an older version ({_OLD_FORM}): use another "
                "work directory"
            )
        self._workdir, self._settings, self._told = workdir, settings, told
        self._keeper, self._source, self._how = keeper, source, how
        self._watched = images.validation[: settings.pictures]
        self._first = jax.process_index() == 0
        with together():
            if self._first:
                make_directory(workdir)
                hold_settings(workdir, told)
                keep_split(workdir, source, images)
        self._checkpoints: Checkpoints | None = None
        self._log: TrainingLog | None = None
        self._masks: list[np.ndarray] = []

    def restore(self, template: TrainState, mesh: Mesh) -> Restored | None:
        """Where the training stands, on the devices of the template; None at its beginning.

        Raises:
          InputError: where it was another network's, or nothing can be read.
        """
        found = newest(self._workdir / CHECKPOINTS, template, mesh)
        restored = None if found is None else Restored(found[0], **found[1])
        step, epochs = (int(restored.state.step), len(restored.curves)) if restored else (0, 0)
        self._checkpoints = Checkpoints(self._workdir / CHECKPOINTS, self._settings.keep)
        with together():
            if self._first:
                self._log = TrainingLog(self._workdir, step, self._settings.tensorboard)
                self._masks = self._known_masks(epochs)
        return restored

    def best(self) -> tuple[Leaves, Leaves] | None:
        """The trained leaves and the model state of the best epoch so far; None where a process
        finds no file of them.

        Raises:
          InputError: where it is damaged.
        """
        path = self._workdir / self._keeper.file
        return self._keeper.load(path) if all_managed(path.exists()) else None

    def state_of(self, best: Epoch, template: TrainState, mesh: Mesh) -> TrainState:
        """The state after the best epoch, from its checkpoint.

        Raises:
          InputError: where that is gone or damaged.
        """
        found = of_step(self._workdir / CHECKPOINTS, best["step"], template, mesh)
        if found is None:
            raise InputError(
                f"{self._workdir / self._keeper.file} is gone, and {CHECKPOINTS}/{best['step']}, "
                "from which it could be made, gone or damaged: put one of them back, or use "
                "another work directory"
            )
        state: TrainState = found[0]
        return state

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Tell of a step."""
        if self._log is not None:
            self._log.add(step, values)

    def save(self, state: TrainState, step: int, curves: list[Epoch], sums: Losses) -> None:
        """Begin to write a checkpoint."""
        at_end = bool(curves) and curves[-1]["step"] == step
        score = _RANKS[self._keeper.select](curves[-1]["scores"]) if at_end else None
        assert self._checkpoints is not None, "restore comes first"
        self._checkpoints.save(step, state, {"curves": curves, "sums": sums}, score)

    def end_epoch(
        self, curves: list[Epoch], best: Snapshot | None, masks: Mapping[int, np.ndarray]
    ) -> None:
        """Write what people look at after an epoch.

        Args:
          curves: of all epochs so far.
          best: of the last one, where it is the best.
          masks: token masks of the images held out; none where no masks are drawn.
        """
        if not self._first:
            return
        self.keep_best(best)
        if masks:
            self._keep_masks(masks)
        name = self._keeper.name
        write_json(self._workdir / f"{name}.json", {"settings": self._told, "epochs": curves})
        if self._log is not None:
            self._log.tabulate()
        page = self._workdir / f"{name}.html"
        write_training_page(page, name, curves, self._shown(), self._told)

    def keep_best(self, best: Snapshot | None) -> None:
        """Write the network of the best epoch, where there is a better one."""
        if best is not None and self._first:
            purpose = {name: v for name, v in self._told.items() if name.startswith(_PURPOSE)}
            notes = {"trained_for": json.dumps(purpose)}
            self._keeper.save(self._workdir / self._keeper.file, best, notes)

    def __enter__(self) -> TrainingFiles:
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
        self._masks.append(np.array(watched, nothing.dtype).reshape(-1, *nothing.shape))
        content = io.BytesIO()
        np.save(content, np.stack(self._masks))
        write_bytes(self._workdir / MASKS, content.getvalue())

    def _known_masks(self, epochs: int) -> list[np.ndarray]:
        path = self._workdir / MASKS
        if not epochs or not self._keeper.draws:
            return []
        try:
            known = np.load(path)[:epochs]
            # Of images that were not watched before there is none.
            more = max(len(self._watched) - known.shape[1], 0)
            known = np.pad(known, ((0, 0), (0, more), (0, 0), (0, 0)))
        except Exception as error:
            raise InputError(
                f"{path} is gone or damaged: put it back, or use another work directory"
            ) from error
        return [*known[:, : len(self._watched)]]

    def _shown(self) -> list[Watched]:
        found = []
        for k, i in enumerate(self._watched if self._masks else ()):
            try:
                picture = self._source.load(i, self._how).as_picture()
            except UnreadableImage:
                continue
            masks = np.stack([of_epoch[k] for of_epoch in self._masks])
            found.append(Watched(self._source.names[i], picture, masks))
        return found
