"""Leases: what belongs to one of several processes for as long as it gives signs of life.

The processes, of any hosts, have nothing in common but a directory. Each has a file there in which
it counts on; whoever finds the count unchanged for long enough, by a clock of its own, takes the
process for dead. A lease is a file that names the life whose it is. No file changes hands: they are
generations, `NAME.0`, `NAME.1` and so on, of which the last one counts, and the next is made where
its owner is dead; of several processes that try, one makes it. A process that was only thought dead
loses what it had to another, so whatever is done under a lease has to bear being done twice.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ltx_jax.errors import InputError
from ltx_jax.files import this_process, write_bytes

# Where they are in a work directory.
_DIRECTORY = ".leases"
# Signs in the time after which a process without any is given up: a few may be late or unseen.
_SIGNS = 12


class _Seen(NamedTuple):
    """What a life's file was seen to hold, since when, and whether that had changed by then."""

    content: bytes
    since: float
    changed: bool


class Leases:
    """The leases in a work directory, as one of the processes sees and takes them.

    Attributes:
      index, count: which process this is, of how many.
      lost_after: seconds without a sign after which a process is taken for dead.
      pause: seconds between two signs of life.
    """

    def __init__(
        self,
        workdir: Path,
        index: int,
        count: int,
        lost_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Change nothing yet; `enter` begins to take part.

        Args:
          workdir: of the run.
          index, count, lost_after: see there; counted from 0.
          clock: seconds, from anywhere on; no other process's need agree with it.
        """
        self.index, self.count = index, count
        self.lost_after = lost_after
        self.pause = lost_after / _SIGNS
        self._directory = workdir / _DIRECTORY
        self._clock = clock
        self._who = f"{uuid.uuid4().hex} {this_process()}"
        self._signs = 0
        self._life: str | None = None
        self._seen: dict[str, _Seen] = {}

    # --- Lives ------------------------------------------------------------------------------------

    def enter(self) -> bool:
        """Begin a life, if no other process stands in its way; False where that is not known yet,
        so that a later call may.

        Raises:
          InputError: where a process with this index is alive, or one of another number of them.
        """
        others = [life for life in self._lives() if self._bars(life) and not self.lost(life)]
        if alive := next(filter(self.alive, others), None):
            self.leave()
            raise InputError(
                f"{self.named(alive)} is at work in {self._directory.parent}: wait for it, or give "
                "this one another --share or --workdir"
            )
        if not others and self._life is None:
            role = f"{self.index}-of-{self.count}"
            life = f"{role}.{self._last(role) + 1}"
            if self._make(life, self._sign()):
                self._life = life
                return self.enter()  # another may have entered at the same moment
        return not others and self._life is not None

    @property
    def number(self) -> int:
        """Another one for each life of each process."""
        assert self._life is not None
        return int(self._life.rpartition(".")[2]) * self.count + self.index

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Give signs of life, and look for those of others, while the work goes on."""
        over = threading.Event()

        def sign_on() -> None:
            while not over.wait(self.pause):
                self.sign()
                self.others()

        thread = threading.Thread(target=sign_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def sign(self) -> None:
        """Give a sign of life."""
        life = self._life
        if life is not None:
            self._signs += 1
            # One that the disk does not take is missing, and no more; a file that is gone, since
            # this process was thought dead, stays so.
            with suppress(OSError), (self._directory / life).open("r+b") as file:
                file.write(self._sign())

    def lost(self, life: str) -> bool:
        """Whether a life is over: left, or without a sign for so long."""
        content, now, seen = self._read(life), self._clock(), self._seen.get(life)
        if content is None:
            return True
        if seen is None or seen.content != content:
            self._seen[life] = _Seen(content, now, seen is not None)
            return False
        return now - seen.since >= self.lost_after

    def alive(self, life: str) -> bool:
        """Whether a life has been seen to give signs, and goes on."""
        return not self.lost(life) and self._seen[life].changed

    def others(self) -> list[str]:
        """Lives of other processes that are not known to be over."""
        return [life for life in self._lives() if life != self._life and not self.lost(life)]

    def named(self, life: str) -> str:
        """The process of a life as people call it."""
        index, _, count = life.partition(".")[0].partition("-of-")
        who = (self._read(life) or b"").decode().split(" ", 2)[2:]
        return f"process {index} of {count}" + "".join(f" ({one})" for one in who)

    def leave(self) -> None:
        """End this life; what it has taken is free."""
        if self._life is not None:
            (self._directory / self._life).unlink(missing_ok=True)
            self._life = None

    # --- Leases -----------------------------------------------------------------------------------

    def take(self, name: str) -> bool:
        """Take the lease on a name, or find that this life has it; False where another has."""
        assert self._life is not None
        last = self._last(name)
        holder = self._holder(name, last)
        if holder is None or (holder != self._life and self.lost(holder)):
            return self._make(f"{name}.{last + 1}", self._life.encode())
        return holder == self._life

    def release(self, name: str) -> None:
        """Give back a lease that this life has."""
        last = self._last(name)
        if self._holder(name, last) == self._life:
            (self._directory / f"{name}.{last}").unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether the lease on a name is this life's."""
        return self._life is not None and self.holder(name) == self._life

    def holder(self, name: str) -> str | None:
        """The life whose lease on a name is the last one, over or not; None where there is none."""
        return self._holder(name, self._last(name))

    def _holder(self, name: str, generation: int) -> str | None:
        content = self._read(f"{name}.{generation}")
        return None if content is None else content.decode()

    # --- Files ------------------------------------------------------------------------------------

    def _sign(self) -> bytes:
        return f"{self._signs:012} {self._who}".encode()

    def _make(self, file: str, content: bytes) -> bool:
        """Make a file; False where another process has made it."""
        write_bytes(self._directory / file, content, over=False)
        return self._read(file) == content

    def _read(self, file: str) -> bytes | None:
        with suppress(OSError):  # gone, or going
            return (self._directory / file).read_bytes()
        return None

    def _last(self, name: str) -> int:
        """The last generation of a name; -1 before the first."""
        split = [file.rpartition(".") for file in self._files()]
        return max((int(n) for key, _, n in split if key == name and n.isdecimal()), default=-1)

    def _lives(self) -> list[str]:
        return [file for file in self._files() if re.fullmatch(r"\d+-of-\d+\.\d+", file)]

    def _files(self) -> list[str]:
        with suppress(OSError):  # not made yet
            return [path.name for path in self._directory.iterdir()]
        return []

    def _bars(self, life: str) -> bool:
        """Whether two lives exclude one another: those of one index, or of different counts."""
        role = life.partition(".")[0]
        alike = role == f"{self.index}-of-{self.count}" or not role.endswith(f"-of-{self.count}")
        return alike and life != self._life


def clear(workdir: Path) -> None:
    """Take all leases and lives away, once no process needs them."""
    shutil.rmtree(workdir / _DIRECTORY, ignore_errors=True)
