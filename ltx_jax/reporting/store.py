"""A run's work directory: what is known of each row, safe from a kill.

Several processes may work on one run. Each appends its lines to files of its own, and all write
their rows of the same mask files; one of them puts the lines together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltx_jax.errors import InputError
from ltx_jax.files import changing, make_directory, read_json, write_json, writing
from ltx_jax.reporting.lines import Lines, Record
from ltx_jax.reporting.mask_files import Mask, MaskFile

SETTINGS, RESULTS, MASKS, SCORES = "settings.json", "results.jsonl", "masks", "scores"
# Of files that are not hidden, as those are that macOS leaves beside others (`._final.npy`).
NPY_FILES = "[!.]*.npy"
# The class that a method's maps are scored for: the one that each explains, or others.
SCORED_FOR = ("explained", "predicted", "label", "both")
_OLD_FORM = "masks.npy"
_RAW = ".raw"


def lines_of(name: str, scored_for: str) -> str:
    """What a method's lines are called: those of other classes than the explained stand apart, so
    that a run's own scores stay."""
    return name if scored_for == "explained" else f"{name}-for-{scored_for}"


class ResultStore:
    """Results keyed by row, written as they come and found again by a restarted run.

    `results.jsonl` has a row's record, `masks/NAME.npy` the masks of a method by row, and
    `scores/NAME.jsonl` what a method scored that is not in the records. A row's line is written
    after its masks are on the disk: it is the promise that the row is done.

    Attributes:
      directory: the work directory.
      rows: of the whole run.
      lines: the records.
    """

    def __init__(self, directory: Path, rows: int, process: int | None = None) -> None:
        self.directory = directory
        self.rows = rows
        self._process = process
        self.lines = Lines(directory / RESULTS, process)
        self._scored: dict[str, Lines] = {}

    @classmethod
    def open(
        cls, directory: Path, settings: Mapping[str, Any], rows: int, process: int | None = None
    ) -> ResultStore:
        """Begin a run's directory, or go on with it.

        Args:
          directory: made where it does not exist.
          settings: what determines the results, by name; JSON types.
          rows: of the whole run.
          process: which of several processes this is; None where there is one.

        Raises:
          InputError: for a directory of a run with other settings or of an older version, or one
            that cannot be written.
        """
        store = cls.seen(directory, settings, rows, process)
        make_directory(directory)
        hold_settings(directory, settings, over=process is None)
        return store

    @classmethod
    def seen(
        cls, directory: Path, settings: Mapping[str, Any], rows: int, process: int | None = None
    ) -> ResultStore:
        """What `open` would go on with, or begin, without any change to the directory yet.

        Raises:
          InputError: where it would not.
        """
        _refuse_old_form(directory)
        store = cls(directory, rows, process)
        last = max(store.done, default=None)
        if (directory / SETTINGS).exists():
            _compare(_read_settings(directory), dict(settings), directory)
        elif last is not None:
            raise InputError(
                f"{directory} holds {RESULTS} without the {SETTINGS} that it was made with: put "
                "that back, or use another --workdir"
            )
        if last is not None and last >= rows:
            raise InputError(
                f"{directory / RESULTS} has a row {last}, and the run {rows} rows: use "
                "another --workdir"
            )
        return store

    @classmethod
    def find(cls, directory: Path, process: int | None = None) -> ResultStore:
        """A run that is there, whatever its settings: to look at it, or to score its masks.

        Raises:
          InputError: where there is none, or one of an older version.
        """
        _refuse_old_form(directory)
        held = _mask_names(directory)
        if not (directory / SETTINGS).exists() or not held:
            raise InputError(f"{directory} holds no run: give the work directory of one")
        _read_settings(directory)
        return cls(directory, MaskFile(_mask_path(directory, held[0])).shape[0], process)

    def hold(self, name: str, shape: tuple[int, ...], raw: tuple[int, ...] | None = None) -> None:
        """Make a method's mask files in their full size, so that a full disk is noticed before work
        is spent, or find them.

        Args:
          name: of the method; letters, digits, _ and -.
          shape: of one row's mask, (g, h) or (H, W).
          raw: of the raw values from which the order of pixels is taken, kept beside the masks;
            None where there are none.

        Raises:
          InputError: for another name, masks of another shape, or a disk that does not take them.
        """
        _check(name)
        with writing(self.directory / MASKS):
            (self.directory / MASKS).mkdir(exist_ok=True)
        # One process at a time: the others find what they would write in its full size as well.
        with changing(self.directory / SETTINGS, self._shared):
            for of_raw, held in ((False, shape), (True, raw)):
                if held is not None:
                    path = _mask_path(self.directory, name, of_raw)
                    self._miss(name, path)
                    MaskFile.hold(path, (self.rows, *held), self._shared)

    def add(
        self,
        rows: Mapping[int, tuple[Record, Mapping[str, Mask]]],
        raw: Mapping[int, Mapping[str, Mask]] | None = None,
    ) -> None:
        """Write finished rows, each with its record and its masks by method; of many together, the
        disk is waited for once a file.

        Args:
          rows: their records and masks.
          raw: of some of them, and some of the methods, the raw values.

        Raises:
          InputError: where the disk does not take it; what is there stays whole.
        """
        for name in dict.fromkeys(name for _, masks in rows.values() for name in masks):
            of_rows = {row: masks[name] for row, (_, masks) in rows.items()}
            known = {row: values[name] for row, values in (raw or {}).items() if name in values}
            self.keep(name, {row: (mask, known.get(row)) for row, mask in of_rows.items()})
        self.lines.append({row: record for row, (record, _) in rows.items()})

    def keep(self, name: str, rows: Mapping[int, tuple[Mask, Mask | None]]) -> None:
        """Write the masks of a method before it is scored, with their raw values where it has any.

        Raises:
          InputError: where the disk does not take it.
        """
        self.masks(name).write({row: mask for row, (mask, _) in rows.items()})
        raw = {row: values for row, (_, values) in rows.items() if values is not None}
        if raw:
            self.masks(name, raw=True).write(raw)

    def skip(self, row: int, image: str, reason: str) -> None:
        """Note a row that could not be done, and why."""
        self.lines.append({row: {"row": row, "image": image, "skipped": reason}})

    @property
    def done(self) -> set[int]:
        """Rows that need no more work, skipped ones included, as far as this process has read."""
        return self.lines.done

    def records(self) -> list[Record]:
        """The records so far, by row; they are kept on the disk alone."""
        return self.lines.records()

    def joined(self, records: Sequence[Record], names: Iterable[str]) -> list[Record]:
        """Records with what the named methods scored after the fact, under each method's name."""
        joined = {record["row"]: record for record in records}
        for name in names:
            for line in self.scored(name).records():
                record = joined.get(line["row"])
                if record and "skipped" not in record:
                    joined[line["row"]] = record | {name: record.get(name, {}) | line}
        return list(joined.values())

    def names(self) -> tuple[str, ...]:
        """Methods of which masks are held, in alphabetical order."""
        return _mask_names(self.directory)

    def masks(self, name: str, raw: bool = False) -> MaskFile:
        """The masks of a method, or their raw values.

        Raises:
          InputError: where none are held.
        """
        return MaskFile(_mask_path(self.directory, name, raw), self._shared)

    def has_raw(self, name: str) -> bool:
        """Whether raw values are kept beside a method's masks."""
        return _mask_path(self.directory, name, raw=True).exists()

    def scored(self, name: str) -> Lines:
        """The lines of a method that is scored after the fact, from its stored masks."""
        _check(name)
        if name not in self._scored:
            self._scored[name] = Lines(self.directory / SCORES / f"{name}.jsonl", self._process)
        return self._scored[name]

    def lines_for_any(self, name: str) -> Iterator[Record]:
        """The lines of a method, for whichever class it was scored."""
        for scored_for in SCORED_FOR:
            yield from self.scored(lines_of(name, scored_for))

    def finish(self) -> None:
        """Put all lines in order, once no other process writes any more: an interrupted run, or one
        of several processes, leaves what an uninterrupted one of a single process does.
        """
        self.lines.merge()
        files = (self.directory / SCORES).glob("[!.]*.jsonl")
        for name in sorted({re.sub(r"-\d+$", "", path.stem) for path in files}):
            self.scored(name).merge()

    def _miss(self, name: str, path: Path) -> None:
        """Refuse to make masks anew of which there are results."""
        if path.exists():
            return
        in_records = any(name in record for record in self.lines.records())
        # There by now where another process has made it, whose results these are.
        if (in_records or self.scored(name).done) and not path.exists():
            results = self.lines if in_records else self.scored(name)
            raise InputError(
                f"{path} is gone, of which {results.path} has results: put it back, or take that "
                "file away as well, and the same command makes both anew"
            )

    @property
    def _shared(self) -> bool:
        return self._process is not None


def hold_settings(directory: Path, settings: Mapping[str, Any], over: bool = True) -> None:
    """Write what determines a run's results, or see that it is the same.

    Args:
      directory: of the run.
      settings: by name; JSON types.
      over: False where another process may write them at the same moment.

    Raises:
      InputError: where the directory has another run's.
    """
    if not (directory / SETTINGS).exists():
        write_json(directory / SETTINGS, dict(settings), over=over)
    # Another process may have written them in between.
    _compare(_read_settings(directory), dict(settings), directory)


def read_records(directory: Path) -> list[Record]:
    """What is known of the rows of a run, finished or not.

    Raises:
      InputError: where there is none, or one of an older version.
    """
    return ResultStore.find(directory).records()


def _mask_path(directory: Path, name: str, raw: bool = False) -> Path:
    return directory / MASKS / f"{name}{_RAW if raw else ''}.npy"


def _mask_names(directory: Path) -> tuple[str, ...]:
    stems = (path.stem for path in (directory / MASKS).glob(NPY_FILES))
    return tuple(sorted(stem for stem in stems if not stem.endswith(_RAW)))


def _read_settings(directory: Path) -> Record:
    """Raises `InputError` where they are damaged."""
    remedy = "put back what the run wrote, or use another --workdir"
    found = read_json(directory / SETTINGS, remedy)
    if not isinstance(found, dict):
        raise InputError(f"{directory / SETTINGS} holds no settings: {remedy}")
    return found


def _check(name: str) -> None:
    """Other endings mean something in the names of files: `-3` a process, `.raw` raw values."""
    if not re.fullmatch(r"[\w-]+", name) or re.search(r"-\d+$", name):
        raise InputError(
            f"masks cannot be called {name!r}: use letters, digits, _ and -, but no -NUMBER at the "
            "end"
        )


def _refuse_old_form(directory: Path) -> None:
    if (directory / _OLD_FORM).exists():
        raise InputError(
            f"{directory} holds a run of an older version, all masks in {_OLD_FORM}: run it again "
            "in another work directory"
        )


def _compare(before: Record, now: Record, directory: Path) -> None:
    now = json.loads(json.dumps(now))
    keys = sorted(key for key in {**before, **now} if before.get(key) != now.get(key))
    if keys:
        changes = "; ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in keys)
        raise InputError(
            f"{directory} holds a run with other settings ({changes}): use another --workdir, or "
            "the same settings"
        )
