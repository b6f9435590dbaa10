"""Words as vectors: embeddings as people publish them, and lists of concepts that have names."""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from ltx_jax.errors import InputError
from ltx_jax.files import is_there, read_json, read_npz

Vectors = dict[str, np.ndarray]
# What stands between the words of a name.
_BETWEEN = re.compile(r"[\s_\-]+")
_REMEDY = "fetch it again"


class Words(NamedTuple):
    """Names that have a vector.

    Attributes:
      names: in the order in which they were asked for.
      vectors: of each.
    """

    names: tuple[str, ...]
    vectors: Float32[np.ndarray, "words width"]


def read_words(path: str | Path, names: Sequence[str], width: int | None = None) -> Words:
    """The vectors of names; names without one are left out, and told.

    A name is looked up as it is written, then in lower case; a name of several words as one
    (`hot_dog`), or it is the mean of its words.

    Args:
      path: of an embedding: GloVe's or word2vec's text, a word and its numbers a line (.txt or
        .vec, with or without a first line of two counts); word2vec's binary (.bin); a .json,
        {word: numbers}; or an .npz with `vectors` [n,width] and `words` [n], without which they are
        those of the names in alphabetical order.
      names: of concepts, each once.
      width: numbers a vector should have; any where it is None.

    Raises:
      InputError: where the file is missing, damaged or of another kind, its vectors have another
        width, or it has none for any of the names.
    """
    path = Path(path)
    if not is_there(path, Path.is_file):
        raise InputError(f"no word embedding at {path}: give one, in {_kinds()}")
    if path.suffix not in _READERS:
        raise InputError(f"{path} is no word embedding by its name: give one in {_kinds()}")
    wanted = {word for name in names for words in _spellings(name) for word in words}
    found = _READERS[path.suffix](path, wanted, names)
    _refuse_damage(path, found)
    known = {name: vector for name in names if (vector := _vector(name, found)) is not None}
    if missing := [name for name in names if name not in known]:
        logging.warning("%s has no vector for %s: left out", path, ", ".join(map(repr, missing)))
    if not known:
        raise InputError(
            f"{path} has a vector for none of {len(names)} names: give an embedding in their "
            "language, or names that are words"
        )
    vectors = np.stack([*known.values()])
    if width not in (None, vectors.shape[1]):
        raise InputError(
            f"{path} has vectors of {vectors.shape[1]} numbers, expected {width}: give the "
            "embedding that the explainer was trained with"
        )
    return Words(tuple(known), vectors)


def _spellings(name: str) -> list[tuple[str, ...]]:
    """Words whose mean a name's vector is; the first of them that are all there."""
    spellings: list[tuple[str, ...]] = []
    for text in (name, name.lower()):
        parts = [part for part in _BETWEEN.split(text) if part]
        spellings += [(text,), ("_".join(parts),), tuple(parts)] if parts else []
    return spellings


def _vector(name: str, found: Vectors) -> Float32[np.ndarray, " width"] | None:
    for words in _spellings(name):
        if all(word in found for word in words):
            mean = np.stack([found[word] for word in words]).mean(0)
            # One that is 0 has no direction.
            return mean if mean.any() else None
    return None


def _refuse_damage(path: Path, found: Vectors) -> None:
    widths = {len(vector) for vector in found.values()}
    if len(widths) > 1:
        raise InputError(
            f"{path} has vectors of {min(widths)} and of {max(widths)} numbers: {_REMEDY}"
        )
    if broken := [word for word, vector in found.items() if not np.isfinite(vector).all()]:
        raise InputError(f"{path} has no finite numbers for {broken[0]!r}: {_REMEDY}")


# --- One reader a format: of an embedding's words those that are wanted --------------------------


def _read_text(path: Path, wanted: Collection[str], names: Sequence[str]) -> Vectors:
    keys = {word.encode() for word in wanted}
    found: dict[bytes, np.ndarray] = {}
    width: int | None = None
    place, last = 0, b""
    with _told(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if width is None:
                first = line.split()
                if len(first) == 2 and all(field.isdigit() for field in first):
                    width = int(first[1])
                    continue
                width = len(first) - 1
            # Only lines that are wanted are taken apart: there are millions.
            if line.partition(b" ")[0] in keys:
                word, vector = _taken_apart(path, line, number, width)
                if word in keys:
                    found.setdefault(word, vector)
            last, place = line, number
    if not last:
        raise InputError(f"{path} holds no words: {_REMEDY}")
    _taken_apart(path, last, place, width or 0)  # where a file was cut off, its last line is
    return {word.decode(): vector for word, vector in found.items()}


def _taken_apart(path: Path, line: bytes, number: int, width: int) -> tuple[bytes, np.ndarray]:
    """A line's word, in which there may be spaces, and its vector."""
    fields = line.split()
    if 0 < width < len(fields):
        try:
            return b" ".join(fields[:-width]), _numbers(fields[-width:])
        except ValueError:
            pass
    raise InputError(f"line {number} of {path} is no word with {width or 'its'} numbers: {_REMEDY}")


def _read_binary(path: Path, wanted: Collection[str], names: Sequence[str]) -> Vectors:
    keys = {word.encode() for word in wanted}
    found: dict[bytes, np.ndarray] = {}
    with _told(path), path.open("rb") as file:
        first = file.readline(64).split()
        if len(first) != 2 or not all(field.isdigit() and int(field) for field in first):
            raise InputError(f"{path} does not begin as word2vec's binaries do: {_REMEDY}")
        count, bytes_each = int(first[0]), 4 * int(first[1])
        place = file.tell()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for index in range(count):
                end = content.find(b" ", place) + 1
                if not end or end + bytes_each > len(content):
                    raise InputError(f"{path} is cut off after {index} of {count} words: {_REMEDY}")
                word = content[place : end - 1].lstrip(b"\n")
                if word in keys:
                    vector = np.frombuffer(content[end : end + bytes_each], "<f4")
                    found.setdefault(word, vector.astype(np.float32))
                place = end + bytes_each
    return {word.decode(): vector for word, vector in found.items()}


def _read_json(path: Path, wanted: Collection[str], names: Sequence[str]) -> Vectors:
    content = read_json(path, _REMEDY, by_hand=True)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no word embedding: expected {{word: [numbers]}}")
    try:
        return {word: _numbers(content[word]) for word in wanted if word in content}
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} has words without numbers: expected {{word: [numbers]}}"
        ) from error


def _read_arrays(path: Path, wanted: Collection[str], names: Sequence[str]) -> Vectors:
    given = read_npz(path, ("vectors", "words"))
    vectors = given.get("vectors", np.zeros(0))
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise InputError(f"{path} has no `vectors` [n,width]: write it with them, and `words` [n]")
    words = _texts(path, given["words"]) if "words" in given else sorted(names)
    if len(words) != len(vectors):
        what = "`words`" if "words" in given else "names, and no `words`"
        raise InputError(
            f"{path} has {len(vectors)} vectors for {len(words)} {what}: write it with a word for "
            "each"
        )
    return {word: _numbers(vector) for word, vector in zip(words, vectors, strict=True)}


def _texts(path: Path, words: np.ndarray) -> list[str]:
    if words.ndim != 1 or words.dtype.kind not in "US":
        raise InputError(f"{path} has `words` {words.dtype} {words.shape}: expected texts [n]")
    if words.dtype.kind == "S":
        words = np.char.decode(words, "utf-8", "replace")
    return [str(word) for word in words]


def _numbers(values: Any) -> Float32[np.ndarray, " width"]:
    """A vector; its numbers may be text.

    Raises:
      ValueError: where they are no numbers in a row.
    """
    # Those too large for their type are refused as infinite ones are.
    with np.errstate(over="ignore"):
        vector = np.asarray(values, np.float64).astype(np.float32)
    if vector.ndim != 1 or not vector.size:
        raise ValueError("expected numbers in a row")
    return vector


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the operating system says about a file, in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from error


def _kinds() -> str:
    return ", ".join(_READERS)


_READERS: dict[str, Callable[[Path, Collection[str], Sequence[str]], Vectors]] = {
    ".txt": _read_text,
    ".vec": _read_text,
    ".bin": _read_binary,
    ".npz": _read_arrays,
    ".json": _read_json,
}
