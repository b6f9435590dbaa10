"""Writing files so that none is ever half-written."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ltx_jax.errors import InputError


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


def make_directory(path: Path) -> None:
    """Make a directory, and show that it can be written to.

    Raises:
      InputError: where it cannot.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\0")


def temporary_name(path: Path) -> Path:
    """A name beside a file that no process of any host gives another file."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


@contextmanager
def replacing(path: Path, sync: bool = False) -> Iterator[IO[bytes]]:
    """A file to write that takes a path's place once it is whole, or never.

    Args:
      path: in a directory that is there.
      sync: wait until the disk holds the content, then its name.

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
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if sync:
            sync_directory(path.parent)


def write_bytes(path: Path, content: bytes, sync: bool = False) -> None:
    """Write a file as a whole or not at all: under a temporary name, then renamed.

    Args:
      path: its directory is made where it does not exist.
      content: of the file.
      sync: wait until it is on the disk.

    Raises:
      InputError: where it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, sync) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, as a whole or not at all."""
    write_bytes(path, encode_json(json.dumps(content, indent=2, ensure_ascii=False) + "\n"))


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
