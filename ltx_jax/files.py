"""Writing files so that none is ever half-written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from ltx_jax.errors import InputError

_LOCK = ".lock"
# What `temporary_name` gives.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp", re.DOTALL)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a write into one line for the user."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}): choose a work directory with room "
            "where you may write"
        ) from error


def is_there(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Whether something is at a path, of the kind that `Path.is_file` or `Path.is_dir` asks for;
    nothing is where the file system refuses to look, as for a name of 300 letters."""
    try:
        return kind(path)
    except OSError:
        return False


def make_directory(path: Path) -> None:
    """Make a directory, and show that it can be written to.

    Raises:
      InputError: where it cannot.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\0")


@contextmanager
def claimed(path: Path, shared: bool = False) -> Iterator[None]:
    """A directory that no other program's work is in at the time; made where it is not there, and
    taken away again where nothing came of it. Of one that is not shared what killed processes left
    half-written goes.

    Args:
      path: of the directory.
      shared: whether others may come in that share it as well, and stay when this one leaves.

    Raises:
      InputError: where one is at work in it, with the name of that, or it cannot be written.
    """
    before = is_there(path)
    make_directory(path)
    with writing(path):
        lock = (path / _LOCK).open("a+b")
    empty = False
    try:
        with lock:
            _lock(lock, path, shared)
            try:
                if not shared:
                    _tidy(path)
                yield
            finally:
                empty = not before and not shared and [*path.iterdir()] == [path / _LOCK]
                if empty:
                    (path / _LOCK).unlink()
    finally:
        if empty:
            with suppress(OSError):  # somebody has come in meanwhile
                path.rmdir()


def _lock(file: IO[bytes], directory: Path, shared: bool) -> None:
    """Take the lock of a directory, and leave word of who has it."""
    import fcntl

    try:
        with writing(directory):
            fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            word = "a run in several processes" if shared else this_process()
            file.seek(0)
            if file.read() != word.encode():
                file.truncate(0)
                file.write(word.encode())
                file.flush()
    except InputError as error:
        if not isinstance(error.__cause__, BlockingIOError):
            raise
        file.seek(0)
        who = file.read().decode(errors="replace") or "another process"
        raise InputError(
            f"{who} is at work in {directory}: wait for it, or use another --workdir"
        ) from None


def _tidy(directory: Path) -> None:
    """Take temporary files away, of a directory and those in it that are not other runs'."""
    with suppress(OSError):  # one that stays takes room, and no more
        inside = [path for path in directory.iterdir() if path.is_dir() and not path.is_symlink()]
        for place in (directory, *(path for path in inside if not (path / _LOCK).exists())):
            for path in place.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink()


def this_process() -> str:
    """Who this is, for people on any host."""
    return f"process {os.getpid()} of {socket.gethostname()}"


def temporary_name(path: Path) -> Path:
    """A name beside a file that no process of any host gives another file."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


@contextmanager
def replacing(path: Path, sync: bool = False, over: bool = True) -> Iterator[IO[bytes]]:
    """A file to write that takes a path's place once it is whole, or never.

    Args:
      path: in a directory that is there.
      sync: wait until the disk holds the content, then its name.
      over: whether in place of a file that is there; if not, that one stays: of several processes
        that make it, on any hosts, one does. The file system has to know hard links.

    Raises:
      InputError: where it cannot be written.
    """
    temporary = temporary_name(path)
    with writing(path):
        try:
            with temporary.open("wb") as file:
                yield file
                if sync:
                    sync_file(file)
            if over:
                temporary.replace(path)
            else:
                with suppress(FileExistsError):
                    path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        if sync:
            sync_directory(path.parent)


def write_bytes(path: Path, content: bytes, sync: bool = False, over: bool = True) -> None:
    """Write a file as a whole or not at all: under a temporary name, then renamed.

    Args:
      path: its directory is made where it does not exist.
      content: of the file.
      sync: wait until it is on the disk.
      over: see `replacing`.

    Raises:
      InputError: where it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, sync, over) as file:
        file.write(content)


def write_json(path: Path, content: Any, over: bool = True) -> None:
    """Write JSON, indented, as a whole or not at all; `over` as for `replacing`."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, encode_json(text), over=over)


def read_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of some arrays that an .npz file has, by name.

    Raises:
      InputError: where it is not a whole one.
    """
    try:
        # Opened here, since numpy leaves a file open that is no whole archive.
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in names if name in arrays}
    except Exception as error:  # a damaged header breaks NumPy in more ways than it names
        raise InputError(f"{path} is not a whole .npz file: write it again") from error


def read_json(path: Path, remedy: str = "mend it", by_hand: bool = False) -> Any:
    """What a JSON file holds.

    Args:
      path: of the file.
      remedy: what to do where it cannot be read.
      by_hand: whether people write such files, who may give a name two values. To look for that
        takes as long as reading.

    Raises:
      InputError: where it is not JSON, or, by hand, gives a name two values.
    """
    try:
        pairs = _each_once if by_hand else None
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        told = f"is not JSON ({error.msg}, line {error.lineno})"
    except RecursionError:
        told = "is JSON nested without end"
    except KeyError as error:
        told = f"gives {error} more than one value"
    except (OSError, ValueError) as error:
        told = f"cannot be read as text ({getattr(error, 'strerror', None) or 'not UTF-8'})"
    raise InputError(f"{path} {told}: {remedy}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which Python would keep the last value that a name is given.

    Raises:
      KeyError: where that differs from another; with the name.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if found[name] != value:
                raise KeyError(name)
    return found


def encode_json(text: str) -> bytes:
    """JSON in UTF-8; of a file name's undecodable bytes JSON's own escapes."""
    return text.encode(errors="backslashreplace")


def sync_file(file: IO[bytes]) -> None:
    """Wait until the disk holds what was written to a file."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the disk holds a directory's names, where the file system can say so."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def digest_of(parts: Iterable[bytes | memoryview]) -> str:
    """Sixteen hexadecimal digits that stand for some contents, in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()[:16]


@contextmanager
def changing(path: Path, shared: bool) -> Iterator[IO[bytes]]:
    """A file to change in place; a shared one is locked against other processes meanwhile.

    Without a lock a network file system may write whole pages, with old bytes of others' parts.

    Raises:
      InputError: where it cannot be written.
    """
    with writing(path), path.open("r+b") as file:
        if shared:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX)
        yield file
