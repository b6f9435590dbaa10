"""Several processes on one work directory: how it is opened, and waiting for the rows of others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ltx_jax.errors import InputError
from ltx_jax.reporting.lines import Lines
from ltx_jax.reporting.store import ResultStore
from ltx_jax.runtime import together

# Seconds to wait for the others' next row, and between two looks.
_PATIENCE, _POLL = 1800, 2


def open_store(
    workdir: Path,
    told: dict[str, Any],
    rows: int,
    held: Mapping[str, tuple[int, ...]],
    raw: tuple[int, ...] | None = None,
) -> ResultStore:
    """The work directory, which process 0 makes and the others find.

    Args:
      workdir, told, rows: as `ResultStore.open` takes them.
      held: shapes of the masks that are made room for before any work is spent, by name.
      raw: shape of the raw values that are kept beside them, if any are.

    Raises:
      InputError: as `ResultStore.open`, or where another process cannot open it.
    """

    def opened(process: int | None) -> ResultStore:
        store = ResultStore.open(workdir, told, rows, process)
        for name, shape in held.items():
            store.hold(name, shape, raw)
        return store

    if jax.process_count() == 1:
        return opened(None)
    with together():
        if jax.process_index() == 0:
            opened(None)
    with together():
        return opened(jax.process_index())


def await_rows(lines: Lines, rows: int) -> None:
    """Wait until every row is done, as long as rows go on coming.

    Raises:
      InputError: where none has come for so long that a process must have been lost.
    """
    if jax.process_count() == 1:
        return
    wait(lines, rows)


def wait(lines: Lines, rows: int) -> None:
    """The same, whatever the number of processes."""
    known, since = -1, time.monotonic()
    lines.read()
    while len(lines.done) < rows:
        if len(lines.done) > known:
            known, since = len(lines.done), time.monotonic()
        elif time.monotonic() - since > _PATIENCE:
            raise InputError(
                f"{known} of {rows} rows are done and none has come for {_PATIENCE} s: a process "
                "was lost; run the command again to do the rest"
            )
        time.sleep(_POLL)
        lines.read()
