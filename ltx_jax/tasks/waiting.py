"""Waiting for the rows of other processes."""

from __future__ import annotations

import time

import jax

from ltx_jax.errors import InputError
from ltx_jax.reporting.lines import Lines

# Seconds to wait for the others' next row, and between two looks.
_PATIENCE, _POLL = 1800, 2


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
