"""A run's work directory: one line of results and one row of masks an image, safe from a kill.

Several processes may work on one run. Each appends its lines to a file of its own, and all write
their rows of the same mask file; process 0 makes the directory, and puts the lines together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.reporting.files import make_directory, temporary_name, write_bytes, write_json, writing

if TYPE_CHECKING:
    from jaxtyping import Float

Record = dict[str, Any]
SETTINGS, RESULTS, MASK_FILE = "settings.json", "results.jsonl", "masks.npy"
_SHARDS = "results-*.jsonl"


class ResultStore:
    """Results keyed by row, written as they come and found again by a restarted run.

    `masks.npy` is float32 [rows, masks, g, h], NaN where nothing is known; it has its full size
    from the beginning, so that a full disk is noticed before work is spent. `results.jsonl` gets
    a row's line after its masks are on the disk: a line is the promise that the row is done.
    """

    def __init__(self, directory: Path, shape: tuple[int, ...], lines: str = RESULTS) -> None:
        self.directory = directory
        self._shape = shape
        self._lines = directory / lines
        self._done: set[int] = set()
        self._offset = 0
        self._seen: dict[Path, int] = {}  # bytes read of each file of lines

    @classmethod
    def open(
        cls,
        directory: Path,
        settings: Mapping[str, Any],
        rows: int,
        masks: tuple[int, int, int],
        process: int | None = None,
    ) -> ResultStore:
        """Begin a run's directory, or go on with it.

        Args:
          directory: made where it does not exist.
          settings: what determines the results, by name; JSON types.
          rows: of the whole run.
          masks: (masks a row, g, h).
          process: which of several processes this is, and the directory is there already; None
            where there is one.

        Raises:
          InputError: for a directory of a run with other settings, or one that cannot be written.
        """
        make_directory(directory)
        lines = RESULTS if process is None else _SHARDS.replace("*", str(process))
        store = cls(directory, (rows, *masks), lines)
        path = directory / SETTINGS
        if path.exists():
            _compare(json.loads(path.read_text()), dict(settings), directory)
        if not (directory / MASK_FILE).exists():
            store._preallocate()
        if not path.exists():
            write_json(path, dict(settings))
        store._read_header()
        store._cut_torn_line()
        store.read()
        return store

    @property
    def done(self) -> set[int]:
        """Rows that need no more work, skipped ones included."""
        return set(self._done)

    def add(self, rows: Mapping[int, tuple[Record, Float[np.ndarray, "m g h"]]]) -> None:
        """Write finished rows, each with its record and masks; of many together, the disk is waited
        for once.

        Raises:
          InputError: where the disk does not take it; what is there stays whole.
        """
        with writing(self.directory / MASK_FILE), (self.directory / MASK_FILE).open("r+b") as file:
            if self._lines.name != RESULTS:
                _lock(file)
            for row, (_, masks) in rows.items():
                values = np.ascontiguousarray(masks, np.float32)
                file.seek(self._offset + row * values.nbytes)
                file.write(values.tobytes())
            file.flush()
            os.fsync(file.fileno())
        self._append({row: record for row, (record, _) in rows.items()})

    def skip(self, row: int, image: str, reason: str) -> None:
        """Note a row that could not be done, and why."""
        self._append({row: {"row": row, "image": image, "skipped": reason}})

    def records(self) -> list[Record]:
        """All lines so far, by row; they are kept on the disk alone."""
        return read_records(self.directory)

    def masks(self, row: int) -> Float[np.ndarray, "m g h"]:
        """The masks of a finished row."""
        size = int(np.prod(self._shape[1:])) * 4
        with (self.directory / MASK_FILE).open("rb") as file:
            file.seek(self._offset + row * size)
            return np.frombuffer(file.read(size), np.float32).reshape(self._shape[1:])

    @property
    def rows(self) -> int:
        """Of the whole run."""
        return self._shape[0]

    @property
    def complete(self) -> bool:
        """Whether every row of the run is done, as far as this process has read."""
        return len(self._done) == self.rows

    def finish(self) -> None:
        """Put all lines in order into one file: an interrupted run, or one of several processes,
        leaves what an uninterrupted one of a single process does.
        """
        lines = "".join(_line(record) for record in self.records())
        write_bytes(self.directory / RESULTS, lines.encode())
        for shard in self.directory.glob(_SHARDS):
            shard.unlink(missing_ok=True)

    def read(self) -> None:
        """Learn what all processes have done since the last time."""
        for path in _files_of_lines(self.directory):
            lines, self._seen[path] = _whole_lines(path, self._seen.get(path, 0))
            self._done.update(json.loads(line)["row"] for line in lines)

    def _append(self, records: Mapping[int, Record]) -> None:
        path = self._lines
        with writing(path), path.open("ab") as file:
            file.write("".join(map(_line, records.values())).encode())
            file.flush()
            os.fsync(file.fileno())
        self._done.update(records)

    def _preallocate(self) -> None:
        """Write the file in full, block by block, under a temporary name."""
        path = self.directory / MASK_FILE
        header = BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(header, description)
        temporary = temporary_name(path)
        row = np.full(self._shape[1:], np.nan, np.float32).tobytes()
        with writing(path):
            try:
                with temporary.open("wb") as file:
                    file.write(header.getvalue())
                    for _ in range(self._shape[0]):
                        file.write(row)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def _read_header(self) -> None:
        path = self.directory / MASK_FILE
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
            self._offset = file.tell()
        if shape != self._shape:
            raise InputError(
                f"{path} holds masks of shape {shape}, this run makes {self._shape}: use another "
                "work directory"
            )

    def _cut_torn_line(self) -> None:
        """Cut off what a kill left of this process's last line."""
        if not self._lines.exists():
            return
        content = self._lines.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with writing(self._lines), self._lines.open("r+b") as file:
                file.truncate(whole)


def read_records(directory: Path) -> list[Record]:
    """What a work directory holds, finished or not, by row."""
    lines = (line for path in _files_of_lines(directory) for line in _whole_lines(path)[0])
    found = {record["row"]: record for record in map(json.loads, lines)}
    return [found[row] for row in sorted(found)]


def _files_of_lines(directory: Path) -> list[Path]:
    """The finished lines, and each process's own."""
    found = (directory / RESULTS, *sorted(directory.glob(_SHARDS)))
    return [path for path in found if path.exists()]


def _lock(file: IO[bytes]) -> None:
    """Keep other processes out until the file is closed.

    Without a lock a network file system may write whole pages, with old bytes of others' rows.
    """
    import fcntl

    fcntl.lockf(file, fcntl.LOCK_EX)


def _whole_lines(path: Path, start: int = 0) -> tuple[list[str], int]:
    """The lines from a byte on, and where they end; one that is still being written is left."""
    with path.open("rb") as file:
        file.seek(start)
        content = file.read()
    whole = content.rfind(b"\n") + 1
    # Not `splitlines`: a name may hold what Unicode takes for the end of a line.
    return content[:whole].decode().split("\n")[:-1], start + whole


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _compare(before: Record, now: Record, directory: Path) -> None:
    now = json.loads(json.dumps(now))
    keys = sorted(key for key in {**before, **now} if before.get(key) != now.get(key))
    if keys:
        changes = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in keys)
        raise InputError(
            f"{directory} holds a run with other settings ({changes}): use another --workdir, or "
            "the same settings"
        )
