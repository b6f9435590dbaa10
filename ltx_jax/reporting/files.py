"""Writing files so that none is ever half-written."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all: under a temporary name, then renamed.

    Raises:
      InputError: where it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, as a whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
