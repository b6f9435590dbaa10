"""Lines of JSON, one a row, safe from a kill at any byte."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ltx_jax.errors import InputError
from ltx_jax.files import encode_json, sync_directory, sync_file, write_bytes, writing

Record = dict[str, Any]
_CHECKSUM = b', "crc32": '


class Lines:
    """Records by row, appended a group at a time by one process or by several.

    Each of several processes appends to a shard of its own, `results-3.jsonl` beside
    `results.jsonl`, and reads everybody's. A last line that a kill has torn is never read, and cut
    off before the next one is written; opening changes nothing, so that a run may be looked at
    while it goes on. A line ends with the checksum of what it says.
    """

    def __init__(self, path: Path, process: int | None = None) -> None:
        """Open lines that are there, or will be.

        Args:
          path: of the file that ends up with all of them.
          process: which of several processes this is; None where there is one.
        """
        self.path = path
        self._own = path if process is None else path.with_name(f"{path.stem}-{process}.jsonl")
        self._begun = False
        self._done: set[int] = set()
        self._seen: dict[Path, int] = {}  # bytes read of each file
        self._merged: int | None = None  # inode of the merged file that they are from
        self.learn()

    @property
    def done(self) -> set[int]:
        """Rows that have a line, as far as this process has read."""
        return set(self._done)

    def learn(self) -> set[int]:
        """Rows that have a line by now."""
        for _ in self._new():
            pass
        return self.done

    def __iter__(self) -> Iterator[Record]:
        """What the disk holds, one record after another and as often as it is asked for: after
        `merge` that of each row, by row."""
        return self._beyond({})

    def records(self) -> list[Record]:
        """All records so far, by row; of several lines of a row the last."""
        found = {record["row"]: record for record in self}
        return [found[row] for row in sorted(found)]

    def learning(self, holds: Callable[[Record], bool]) -> Callable[[], set[int]]:
        """What tells, each time anew, the rows that have a line which holds.

        Args:
          holds: whether a line does.
        """
        known = {record["row"] for record in self if holds(record)}

        def rows() -> set[int]:
            known.update(record["row"] for record in self._new() if holds(record))
            return known

        return rows

    def append(self, records: Mapping[int, Record]) -> None:
        """Append records, each of which has its `row`; the disk is waited for once.

        Raises:
          InputError: where the disk does not take them.
          ValueError: for NaN or an infinity, which JSON does not have; nothing is written.
        """
        content = b"".join(map(_line, records.values()))
        with writing(self._own):
            if not self._begun:
                self._begin()
            with self._own.open("ab") as file:
                file.write(content)
                sync_file(file)
        self._done.update(records)

    def merge(self, holds: Callable[[Record], bool] = lambda _: True) -> None:
        """Put a line of each row, in order of rows, into one file, once no other process writes any
        more: the last one, or the last that holds.

        The disk holds it before a shard is deleted, so that whatever happens keeps every line.

        Args:
          holds: whether a line still does; one that does not counts for nothing beside one that
            does, wherever they stand.
        """
        shards, held = self._shards(), set()
        lines: dict[int, bytes] = {}
        for record in self:
            if does := holds(record):
                held.add(record["row"])
            if does or record["row"] not in held:
                lines[record["row"]] = _line(record)
        write_bytes(self.path, b"".join(lines[row] for row in sorted(lines)), sync=True)
        for shard in shards:
            shard.unlink(missing_ok=True)
        self._begun = False

    def _begin(self) -> None:
        """Make this process's file, or cut off what a kill left of its last line."""
        self._own.parent.mkdir(parents=True, exist_ok=True)
        with self._own.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        sync_directory(self._own.parent)
        self._begun = True

    def _shards(self) -> list[Path]:
        begin = len(self.path.stem) + 1
        found = self.path.parent.glob(f"{self.path.stem}-*.jsonl")
        numbered = [path for path in found if path.stem[begin:].isdecimal()]
        # A process that begins once more has a greater number.
        return sorted(numbered, key=lambda path: int(path.stem[begin:]))

    def _new(self) -> Iterator[Record]:
        """What all processes have written since the last time, whose rows are learnt."""
        merged = self.path.stat().st_ino if self.path.exists() else None
        if merged != self._merged:  # after a merge all files are others
            self._seen.clear()
            self._merged = merged
        for record in self._beyond(self._seen):
            self._done.add(record["row"])
            yield record

    def _beyond(self, seen: dict[Path, int]) -> Iterator[Record]:
        """Records of all files beyond the bytes that were seen, which are counted on."""
        # Shards are read before the file that another process may just be merging them into, and
        # stand after it, since theirs are the later lines.
        later = [record for shard in self._shards() for record in _records(shard, seen)]
        yield from _records(self.path, seen)
        yield from later


def _records(path: Path, seen: dict[Path, int]) -> Iterator[Record]:
    """Of the whole lines beyond the bytes that were seen.

    Raises:
      InputError: for a line that is none of a row.
    """
    start = seen.setdefault(path, 0)
    with suppress(FileNotFoundError), path.open("rb") as file:  # not begun, or merged meanwhile
        file.seek(start)
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = _read(line[:-1])
            except ValueError:
                where = f"line {number}" + (f" after byte {start}" if start else "")
                raise InputError(
                    f"{path} is damaged ({where} is no row's): take that line out, and the same "
                    "command does its row again"
                ) from None
            seen[path] += len(line)
            yield record


def _read(line: bytes) -> Record:
    """Raises ValueError for what no run has written."""
    body, told, checksum = line.rpartition(_CHECKSUM)
    if not told or checksum != b"%d}" % zlib.crc32(body):
        raise ValueError("damaged")
    return dict(json.loads(body + b"}"))


def _line(record: Record) -> bytes:
    """With a checksum, so that a disk's or an editor's slip is no result."""
    body = encode_json(json.dumps(record, ensure_ascii=False, allow_nan=False)[:-1])
    return body + _CHECKSUM + b"%d}\n" % zlib.crc32(body)
