"""Files of images: what breaks as one is read, and what tells that one has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ltx_jax.data.examples import UnreadableImage
from ltx_jax.files import digest_of


@contextmanager
def or_unreadable(path: Path) -> Iterator[None]:
    """Whatever breaks inside as one line about an image, which may be left out.

    Args:
      path: of the file that is read, whose name the line does without.

    Raises:
      UnreadableImage: for an exception of any type.
    """
    try:
        yield
    except Exception as error:  # a damaged file breaks Pillow in more ways than it names
        reason = str(error).replace(str(path), "the file")
        raise UnreadableImage(" ".join(reason.split()) or type(error).__name__) from error


def digest_of_files(told: Iterable[str], paths: Iterable[Path]) -> str:
    """Of some texts, and of the bytes of files; one that cannot be read has none."""
    with ThreadPoolExecutor() as several:
        return digest_of([*(text.encode() for text in told), *several.map(_hashed, paths)])


def _hashed(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""
