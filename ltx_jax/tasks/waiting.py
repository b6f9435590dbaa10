"""Several processes on one work directory: how it is opened, and waiting for the rows of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltx_jax.errors import InputError
from ltx_jax.reporting.store import ResultStore
from ltx_jax.runtime import together

# Rows that need no more work, whichever process did them, as of now.
Done = Callable[[], set[int]]

# Seconds to wait for the others' next row, and between two looks.
_PATIENCE, POLL = 1800, 2


def open_store(
    workdir: Path,
    told: dict[str, Any],
    rows: int,
    process: int | None,
    held: Mapping[str, tuple[int, ...]],
    raw: tuple[int, ...] | None = None,
) -> ResultStore:
    """The work directory, which the first process makes and the others find.

    Args:
      workdir, told, rows, process: as `ResultStore.open` takes them.
      held: shapes of the masks that are made room for before any work is spent, by name.
      raw: shape of the raw values that are kept beside them, if any are.

    Raises:
      InputError: as `ResultStore.open`, or where another process cannot open it.
    """
    with together():
        store = ResultStore.open(workdir, told, rows, process)
        for name, shape in held.items():
            store.hold(name, shape, raw)
        return store


def await_rows(rows: Iterable[int], done: Done) -> None:
    """Wait until all rows are done, as long as they go on coming.

    Raises:
      InputError: as `until_done`.
    """
    for _ in until_done(rows, done):
        pass


def until_done(
    rows: Iterable[int], done: Done, alive: Callable[[], object] = lambda: False
) -> Iterator[set[int]]:
    """The rows that are still missing, again and again until none is, as long as they go on coming.

    Args:
      rows, done: as of `await_rows`.
      alive: whether a process is known to be at work still, so that its rows will come.

    Raises:
      InputError: where none has come for so long that a process must have been lost.
    """
    wanted, known, since = set(rows), None, 0.0
    while missing := wanted - done():
        if missing != known:
            known, since = missing, time.monotonic()
        elif alive():
            since = time.monotonic()
            time.sleep(POLL)
        elif time.monotonic() - since > _PATIENCE:
            raise InputError(
                f"{len(wanted) - len(missing)} of {len(wanted)} rows are done and none has come "
                f"for {_PATIENCE} s: a process was lost; run the command again to do the rest"
            )
        else:
            time.sleep(POLL)
        yield missing
