"""Files of images: which there are, what breaks as one is read, what tells that one has changed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal

from ltx_jax.data.examples import Example, UnreadableImage
from ltx_jax.data.preprocessing import HEIC, Preprocessing, read_resized
from ltx_jax.errors import InputError
from ltx_jax.files import digest_of

SUFFIXES = HEIC | {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".avif", ".gif"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
}
# Files read for a digest: all of ImageNet's validation images, one of 13 of its training images.
_MOST_READ = 100_000


@dataclass(frozen=True)
class FileSource:
    """Image files (a `data.examples.Source`).

    Attributes:
      names: one an image, all different.
      labels: class indices of each image; () where unknown.
      paths: where each is; as text, since a million of `Path` take ten seconds to make.
      label_names: what labels are called, where folders say so.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    paths: tuple[str, ...]
    label_names: Mapping[int, str] = field(default_factory=dict)
    has_masks = False

    @classmethod
    def of(
        cls,
        folder: Path,
        inside: Sequence[str],
        labels: Sequence[tuple[int, ...]],
        label_names: Mapping[int, str] | None = None,
    ) -> FileSource:
        """Files of a folder, by their paths inside of it."""
        paths = tuple(f"{folder}/{path}" for path in inside)
        return cls(tuple(map(readable, inside)), tuple(labels), paths, label_names or {})

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, how: Preprocessing) -> Example:
        """The example at a network's size; raises `UnreadableImage`."""
        path = Path(self.paths[index])
        with or_unreadable(path):
            return Example(read_resized(path, how), self.labels[index])

    def digest(self) -> str:
        """Of the bytes of all files, and the labels; a file that cannot be read has none."""
        return digest_of_files([repr(self.labels)], map(Path, self.paths))

    def only(self, rows: Sequence[int]) -> FileSource:
        """Some of the examples, in the order of their numbers here."""
        names = tuple(self.names[row] for row in rows)
        labels = tuple(self.labels[row] for row in rows)
        paths = tuple(self.paths[row] for row in rows)
        return FileSource(names, labels, paths, self.label_names)


def open_folder(folder: Path) -> FileSource:
    """The images of a folder, to its depths, in sorted order; what else is there is said.

    Args:
      folder: links in it are followed, hidden files left out.

    Raises:
      InputError: where there is no image.
    """
    found, others = [], Counter[str]()
    for name in _files_in(folder, "", set()):
        if is_image(name):
            found.append(name)
        else:
            others[Path(name).suffix or Path(name).name] += 1
    if not found:
        raise InputError(
            f"no images in {folder}: expected files that end in {', '.join(sorted(SUFFIXES))}"
        )
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        logging.info("left out of %s, no images by their names: %s", folder, kinds)
    return FileSource.of(folder, found, ((),) * len(found))


def held_by(folder: str | Path) -> list[os.DirEntry[str]]:
    """What a folder holds, hidden ones aside, by name; nothing where there is no folder, or, which
    is said, where it cannot be read. The kind of each comes with it: no file is asked for its own.
    """
    try:
        with os.scandir(folder) as entries:
            shown = (entry for entry in entries if not entry.name.startswith("."))
            return sorted(shown, key=attrgetter("name"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        logging.warning("left out %s, which cannot be read (%s)", folder, error.strerror)
        return []


def kind_of(entry: os.DirEntry[str]) -> Literal["folder", "file"] | None:
    """What an entry of a folder is, through links; None for a link to nothing."""
    with suppress(OSError):  # a link to itself
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    return None


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name[name.rfind(".") :].lower() in SUFFIXES


def readable(name: str) -> str:
    """A name as text, whatever bytes a file system holds."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _files_in(folder: Path, inside: str, seen: set[str]) -> Iterator[str]:
    """Files to the depths of a folder, through links, each folder once; without hidden ones."""
    here = f"{folder}/{inside}"
    real = os.path.realpath(here)
    if real in seen:
        return
    seen.add(real)
    for entry in held_by(here):
        kind = kind_of(entry)
        if kind == "folder":
            yield from _files_in(folder, f"{inside}{entry.name}/", seen)
        elif kind == "file":
            yield f"{inside}{entry.name}"


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
    """Of some texts, and of the bytes of files; one that cannot be read has none. Of more files
    than are read in minutes, so many that are spread evenly."""
    files = list(paths)
    read = files[:: -(-len(files) // _MOST_READ) or 1]
    with ThreadPoolExecutor() as several:
        return digest_of([*(text.encode() for text in told), *several.map(_hashed, read)])


def _hashed(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""
