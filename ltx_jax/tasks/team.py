"""The processes that share a run: which rows fall to one of them, and which of them reports."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import jax

from ltx_jax.errors import InputError
from ltx_jax.leases import Leases, clear
from ltx_jax.runtime import agreed_rows
from ltx_jax.tasks.waiting import POLL, Done, until_done

# Groups that a process's share is cut into: one that dies, or comes to its end last, leaves the
# others little to do or to wait for.
_GROUPS = 32
# Leases on what is not rows: a note that all read, and the report.
_NOTE, _REPORT = "note", "report"


@runtime_checkable
class Team(Protocol):
    """The processes that share a run, as one of them sees them."""

    @property
    def index(self) -> int:
        """Which process this is, counted from 0."""
        ...

    @property
    def count(self) -> int:
        """How many processes there are."""
        ...

    @property
    def number(self) -> int | None:
        """Of the files to which no other process writes; None where there is no other."""
        ...

    def dealt(self, missing: Sequence[int], total: int) -> list[int]:
        """What `shares` deals out of a run of so many rows, some of which this process found
        missing: the same in each."""
        ...

    def shares(self, name: str, rows: Sequence[int], done: Done) -> Iterator[Iterable[int]]:
        """Rows for this process to do, in lots of which each is done before the next is asked for.

        Args:
          name: of what is done to them; letters, digits, _ and -.
          rows: to be dealt out, the same in each process.
          done: those that need no more work, and perhaps others.
        """
        ...

    def noting(self) -> AbstractContextManager[bool]:
        """While something is noted that every process reads: whether this one notes anything."""
        ...

    def farewell(self) -> str | None:
        """Once this process finds nothing more to do: what it ends with where another reports, and
        None where it does so itself."""
        ...


class Processes:
    """Processes under `jax.distributed`, or the only one: each does what it is dealt, and process 0
    reports."""

    @property
    def index(self) -> int:
        """See `Team`."""
        return jax.process_index()

    @property
    def count(self) -> int:
        """See `Team`."""
        return jax.process_count()

    @property
    def number(self) -> int | None:
        """See `Team`."""
        return self.index if self.count > 1 else None

    def dealt(self, missing: Sequence[int], total: int) -> list[int]:
        """What process 0 found missing, so that images which stop early are spread evenly."""
        return agreed_rows(missing, total)

    def shares(self, name: str, rows: Sequence[int], done: Done) -> Iterator[Iterable[int]]:
        """One share, dealt out in turn, without a word to the others."""
        there = done()
        share = [row for row in rows[self.index :: self.count] if row not in there]
        if share:
            yield share

    @contextmanager
    def noting(self) -> Iterator[bool]:
        """Process 0 does."""
        yield self.index == 0

    def farewell(self) -> str | None:
        """See `Team`."""
        if self.index == 0:
            return None
        return f"process {self.index} has done its share; process 0 reports"


ALONE = Processes()


class Sharing:
    """Processes that know each other by leases alone: each does its share, and then what no living
    one has begun; whichever finds all done first reports."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.index, self.count, self.number = leases.index, leases.count, leases.number

    def dealt(self, missing: Sequence[int], total: int) -> list[int]:
        """All rows: others have found others missing."""
        return list(range(total))

    def shares(self, name: str, rows: Sequence[int], done: Done) -> Iterator[Iterable[int]]:
        """The own share, and lots of the others' until all rows are done, by whichever process."""
        groups = {f"{name}.{i}": group for i, group in enumerate(groups_of(rows, self.count))}
        own = list(groups)[self.index :: self.count]
        # The others begin with their first.
        others = [key for key in reversed(groups) if key not in own]
        for missing in until_done(rows, done, self._leases.others):
            for keys in own, others:
                # Nothing is waited for while rows are drawn: those before are still to be done.
                lot = self._taken({key: groups[key] for key in keys}, missing, done)
                if (first := next(lot, None)) is not None:
                    yield chain((first,), lot)
                    break

    def _taken(
        self, groups: Mapping[str, Sequence[int]], missing: set[int], done: Done
    ) -> Iterator[int]:
        """Rows on which this process takes a lease as they are drawn, a group at a time."""
        for key, group in groups.items():
            if not missing.isdisjoint(group) and self._leases.take(key):
                missing = missing - done()  # some by whoever had the lease before
                yield from (row for row in group if row in missing)

    @contextmanager
    def noting(self) -> Iterator[bool]:
        """Each does, one at a time."""
        while not self._leases.take(_NOTE):
            time.sleep(POLL)
        try:
            yield True
        finally:
            self._leases.release(_NOTE)

    def farewell(self) -> str | None:
        """See `Team`; one that died over the report is no other."""
        while not self._leases.take(_REPORT):
            holder = self._leases.holder(_REPORT)
            if holder is not None and self._leases.alive(holder):
                reports = self._leases.named(holder)
                return f"process {self.index} of {self.count} has done its share; {reports} reports"
            time.sleep(POLL)
        return None


@contextmanager
def sharing(index: int, count: int, workdir: Path, lost_after: float) -> Iterator[Sharing]:
    """This process as one of several that share a run.

    Args:
      index, count: which process this is, counted from 0, of how many.
      workdir: of the run.
      lost_after: seconds without a sign after which another process is taken for dead.

    Raises:
      InputError: where a process stands in this one's way.
    """
    leases = Leases(workdir, index, count, lost_after)
    with leases.signing():
        try:
            if not leases.enter():
                logging.info("up to %g s to see whether an earlier process is alive", lost_after)
                while not leases.enter():
                    time.sleep(min(leases.pause, POLL))
            yield Sharing(leases)
            _see_off(leases, workdir)
        finally:
            leases.leave()


def _see_off(leases: Leases, workdir: Path) -> None:
    """Where this process has reported, let the others see that and leave; take the leases away."""
    if not leases.has(_REPORT):
        return
    began = time.monotonic()
    while leases.others():
        # Whoever is alive so long after all was done has yet to find that, and reports once more.
        if time.monotonic() - began > leases.lost_after:
            return
        time.sleep(min(leases.pause, POLL))
    clear(workdir)


def read_share(told: str) -> tuple[int, int]:
    """INDEX and ALL of `INDEX/ALL`.

    Raises:
      InputError: where it is none.
    """
    stated = re.fullmatch(r"(\d{1,5})/(\d{1,5})", told, re.ASCII)
    index, count = map(int, stated.groups()) if stated else (0, 0)
    if index >= count:
        raise InputError(
            f"--share={told}: expected INDEX/ALL with an index from 0 to ALL less 1, e.g. 3/16"
        )
    return index, count


def groups_of(rows: Sequence[int], count: int) -> list[Sequence[int]]:
    """The shares of so many processes, each cut in groups; group g is of the share g modulo their
    number."""
    shares = [rows[i::count] for i in range(count)]
    size = max(-(-len(rows) // (count * _GROUPS)), 1)
    starts = range(0, len(shares[0]), size)
    return [share[start : start + size] for start in starts for share in shares]
