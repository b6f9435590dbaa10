"""Lines of JSON, one a row, safe from a kill at any byte."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
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
        self.read()

    @property
    def done(self) -> set[int]:
        """Rows that have a line, as far as this process has read."""
        return set(self._done)

    def learn(self) -> set[int]:
        """Rows that have a line by now."""
        self.read()
        return self.done

    def read(self) -> list[Record]:
        """Learn what all processes have written since the last time; tells it."""
        merged = self.path.stat().st_ino if self.path.exists() else None
        if merged != self._merged:  # after a merge all files are others
            self._seen.clear()
            self._merged = merged
        found = self._beyond(self._seen)
        self._done.update(record["row"] for record in found)
        return found

    def records(self, holds: Callable[[Record], bool] = lambda _: True) -> list[Record]:
        """All records so far, by row; of several lines of a row the last. They are kept on the disk
        alone.

        Args:
          holds: whether a line still does; of several lines of a row one that does not counts for
            nothing beside one that does, wherever they stand.
        """
        found: dict[int, Record] = {}
        for record in self._beyond({}):
            before = found.get(record["row"])
            if before is None or holds(record) or not holds(before):
                found[record["row"]] = record
        return [found[row] for row in sorted(found)]

    def learning(self, holds: Callable[[Record], bool]) -> Callable[[], set[int]]:
        """What tells, each time anew, the rows that have a line which holds.

        Args:
          holds: whether a line does.
        """
        known = {record["row"] for record in self.records(holds) if holds(record)}

        def rows() -> set[int]:
            known.update(record["row"] for record in self.read() if holds(record))
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
        """Put all lines, in order of rows, into one file, once no other process writes any more.

        The disk holds it before a shard is deleted, so that whatever happens keeps every line.

        Args:
          holds: see `records`.
        """
        shards = self._shards()
        content = b"".join(map(_line, self.records(holds)))
        write_bytes(self.path, content, sync=True)
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

    def _beyond(self, seen: dict[Path, int]) -> list[Record]:
        """Records of all files beyond the bytes that were seen, which are counted on."""
        # Shards are read before the file that another process may just be merging them into, and
        # stand after it, since theirs are the later lines.
        *shards, merged = (_records(path, seen) for path in (*self._shards(), self.path))
        return [record for records in (merged, *shards) for record in records]


def _records(path: Path, seen: dict[Path, int]) -> list[Record]:
    """Of the whole lines beyond the bytes that were seen.

    Raises:
      InputError: for a line that is none of a row.
    """
    start, content = seen.get(path, 0), b""
    with suppress(FileNotFoundError), path.open("rb") as file:  # not begun, or merged meanwhile
        file.seek(start)
        content = file.read()
    whole = content.rfind(b"\n") + 1
    seen[path] = start + whole
    # Not `splitlines`: a name may hold what Unicode takes for the end of a line.
    records: list[Record] = []
    for line in content[:whole].split(b"\n")[:-1]:
        try:
            records.append(_read(line))
        except ValueError:
            where = f"line {len(records) + 1}" + (f" after byte {start}" if start else "")
            raise InputError(
                f"{path} is damaged ({where} is no row's): take that line out, and the same "
                "command does its row again"
            ) from None
    return records


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
