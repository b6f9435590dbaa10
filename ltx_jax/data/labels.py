"""Which class each image shows, and what classes are called: as people write it down."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ltx_jax.errors import InputError
from ltx_jax.files import is_there, read_json

# Of ImageNet's devkit; its numbers are none of class indices, see `data.imagenet`.
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
# Columns of the original LTX's `val_ground_truth_2012.csv`.
_COLUMNS = ("img_name", "label")


def read_labels(path: Path, names: Sequence[str]) -> tuple[int, ...]:
    """One class index for each name.

    Args:
      path: of a .json {name: index}, a .csv with the columns `img_name` and `label`, or a text file
        with "NAME INDEX" lines or with one index a line in the order of the names.
      names: of the images; where a file does not have one, it is looked up without its folders.

    Raises:
      InputError: where labels are missing, are not indices, their number differs, or an image has
        two.
    """
    if not is_there(path, Path.is_file):
        raise InputError(f"no labels at {path}: give a .json, a .csv or a text file")
    table = _read_table(path, names)
    bases = [name.rpartition("/")[2] for name in names]
    count = Counter(bases)
    for name, base in zip(names, bases, strict=True):
        if name not in table and base in table and count[base] > 1:
            raise InputError(
                f"{path} gives {base!r} a label, a name that {count[base]} images have ({name} is "
                "one): give their paths as they lie in config.images"
            )
    keys = [name if name in table else base for name, base in zip(names, bases, strict=True)]
    missing = [name for name, key in zip(names, keys, strict=True) if key not in table]
    if missing:
        some = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise InputError(
            f"{path} has no label for {len(missing)} of {len(names)} images ({some}): add them, or "
            "leave config.labels out"
        )
    values = tuple(table[key] for key in keys)
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(
                f"{path} gives {name} the label {value!r}: expected a class index, 0 or more"
            )
    return values


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Class names: a text file with one a line, or a .json list, {"0": name} or {"0": [id, name]}.

    Raises:
      InputError: where the file is missing or of another form, or gives a class two names.
    """
    path = Path(path)
    if not is_there(path, Path.is_file):
        raise InputError(f"no class names at {path}: give a .json or a text file with one a line")
    if path.suffix != ".json":
        return tuple(read_lines(path))
    names = read_json(path, by_hand=True)
    try:
        if isinstance(names, dict):
            names = [names[str(i)] for i in range(len(names))]
        found = [name if isinstance(name, str) else name[-1] for name in names]
    except (KeyError, TypeError, IndexError):
        found = [None]
    if isinstance(names, str) or not all(isinstance(name, str) for name in found):
        raise InputError(
            f'{path} is no list of class names: expected a list, or {{"0": name, "1": name, …}}'
        )
    return tuple(found)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold anything, without the spaces around it.

    Raises:
      InputError: where it cannot be read as text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as text: give a text file, a folder or an .npz"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Some columns of a .csv, by the names in its first line; "" where a line is too short.

    Raises:
      InputError: where it is none, or has no such columns.
    """
    try:
        rows = csv.DictReader(read_lines(path), strict=True)
        if not set(columns) <= set(rows.fieldnames or ()):
            raise InputError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'of an empty file'}: "
                f"expected {' and '.join(columns)}"
            )
        return [tuple(row[column] or "" for column in columns) for row in rows]
    except csv.Error as error:
        raise InputError(f"{path} is no .csv ({error}): write it again") from error


def _read_table(path: Path, names: Sequence[str]) -> dict[str, Any]:
    if path.name == GROUND_TRUTH:
        raise InputError(
            f"{path} counts the classes in an order of its own: leave config.labels out, and set "
            "config.dataset to imagenet, which finds the file above config.images"
        )
    if path.suffix == ".csv":
        return _as_table(path, read_rows(path, _COLUMNS))
    if path.suffix != ".json":
        return _as_table(path, _read_pairs(path, names))
    table = read_json(path, by_hand=True)
    if not isinstance(table, dict):
        raise InputError(f"{path} holds a {type(table).__name__}: expected {{name: index}}")
    return table


def _read_pairs(path: Path, names: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Names and indices of a text file."""
    lines = [line.split() for line in read_lines(path)]
    if not all(len(line) == 1 for line in lines):
        return [(" ".join(line[:-1]), line[-1]) for line in lines]
    if len(lines) != len(names):
        raise InputError(
            f"{path} has {len(lines)} labels for {len(names)} images: give one a line for each, or "
            "lines of NAME INDEX"
        )
    return zip(names, (line[0] for line in lines), strict=True)


def _as_table(path: Path, pairs: Iterable[tuple[str, ...]]) -> dict[str, int]:
    table: dict[str, int] = {}
    for name, text in pairs:
        try:
            label = int(text)
        except ValueError as error:
            raise InputError(
                f"{path} has a line whose label is no number: expected NAME INDEX, or INDEX alone"
            ) from error
        if table.setdefault(name, label) != label:
            raise InputError(
                f"{path} gives {name!r} the labels {table[name]} and {label}: give one"
            )
    return table
