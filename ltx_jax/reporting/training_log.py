"""What a training tells of itself: a line a while as JSON, the same as CSV, and for TensorBoard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltx_jax.errors import InputError, needed_package
from ltx_jax.files import write_bytes, writing
from ltx_jax.settings.section import by_dotted_name

LINES, TABLE = "metrics.jsonl", "metrics.csv"


class TrainingLog:
    """Lines by step. What a training tells again as it goes on from a checkpoint is told once."""

    def __init__(self, workdir: Path, step: int, tensorboard: bool) -> None:
        """Go on with a log, or begin one.

        Args:
          workdir: where its files go.
          step: from which the training goes on; lines of later ones are taken back.
          tensorboard: whether to write events for TensorBoard as well, to `tensorboard/`.

        Raises:
          InputError: where they cannot be written, or tensorboardX is missing.
        """
        self._workdir = workdir
        kept = [line for line in _lines(workdir / LINES) if line["step"] <= step]
        told = "".join(json.dumps(line) + "\n" for line in kept)
        write_bytes(workdir / LINES, told.encode())
        self._board = _board(workdir / "tensorboard", step) if tensorboard else None

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Tell of a step, of numbers by name; those that belong together in a mapping of theirs.

        Raises:
          InputError: where the disk does not take it.
        """
        with writing(self._workdir / LINES), (self._workdir / LINES).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in by_dotted_name(values).items():
                self._board.add_scalar(name.replace(".", "/"), value, step)

    def tabulate(self) -> None:
        """Write the lines so far as a table, a column a number.

        Raises:
          InputError: where the disk does not take it.
        """
        rows = [by_dotted_name(line) for line in _lines(self._workdir / LINES)]
        text = io.StringIO()
        table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
        write_bytes(self._workdir / TABLE, text.getvalue().encode())

    def close(self) -> None:
        """Wait until TensorBoard's events are written."""
        if self._board is not None:
            self._board.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; the last one is cut off where a training was killed."""
    try:
        text = path.read_text() if path.exists() else ""
        return [_read(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): take it away, and the log begins where the training is"
        ) from error


def _read(line: str) -> dict[str, Any]:
    """Raises ValueError or TypeError for what no training has written."""
    found = json.loads(line) | {}
    if type(found.get("step")) is not int:
        raise ValueError("a line without its step")
    return found


def _board(directory: Path, step: int) -> Any:
    board = needed_package("tensorboardX", "pretrain.tensorboard", "tensorboard")
    with writing(directory):
        return board.SummaryWriter(str(directory), purge_step=step + 1)
