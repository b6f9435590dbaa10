"""Tables image class × mask class in files, and as matrices of colours on a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from ltx_jax.reporting.overlays import heat_map, in_hex
from ltx_jax.reporting.tables import plain
from ltx_jax.reporting.titles import title_of

TOLD = (
    "Images of the class of a row, seen through their mask of the class of a column: the mean "
    "probability (softmax, over thresholds .1 to .9 of the mask) of the row's class."
)
_UNMASKED = "no mask"
_LIGHT = 140.0  # a colour's lightness from which dark letters are read


class ClassTable(NamedTuple):
    """The table.

    Attributes:
      classes: what its rows and columns are called.
      means: probabilities in [0,1], of images of class i through masks of class j; NaN in the row
        of a class without images.
      unmasked: the same of the images as they are.
      images: how many each row rests on.
    """

    classes: tuple[str, ...]
    means: Float64[np.ndarray, "i i"]
    unmasked: Float64[np.ndarray, " i"]
    images: Int64[np.ndarray, " i"]

    def diagonal(self) -> tuple[float, float]:
        """The mean of the diagonal and of everything else, over the rows that have images; NaN
        where there are none."""
        here = self.images > 0
        own = np.eye(len(self.classes), dtype=bool)
        inside, outside = self.means[own & here[:, None]], self.means[~own & here[:, None]]
        return _mean(inside), _mean(outside)

    def as_json(self) -> dict[str, Any]:
        """With None where nothing is known."""
        known = np.isfinite(self.means).all(1)
        means, unmasked = (
            [one if there else None for one, there in zip(values.tolist(), known, strict=True)]
            for values in (self.means, self.unmasked)
        )
        on, off = (mean if np.isfinite(mean) else None for mean in self.diagonal())
        told = {"diagonal": on, "elsewhere": off}
        return {
            "classes": list(self.classes),
            "images": self.images.tolist(),
            "means": means,
            "unmasked": unmasked,
        } | told


def _mean(values: Float64[np.ndarray, " n"]) -> float:
    return float(values.mean()) if values.size else float("nan")


# By method.
ClassTables = Mapping[str, ClassTable]


def comma_separated(tables: ClassTables) -> str:
    """A row a method and image class, a column a mask class; nothing where nothing is known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = next(iter(tables.values())).classes
    writer.writerow(["method", "image class", "images", _UNMASKED, *classes])
    for method, table in tables.items():
        for name, images, row in _rows(table):
            cells = (f"{v:.6f}" if np.isfinite(v) else "" for v in row)
            writer.writerow([method, name, images, *cells])
    return text.getvalue()


def markdown(tables: ClassTables) -> str:
    """A table a method for people, the diagonals bold."""
    parts = [f"## {plain(title_of(method))}\n\n{_table(one)}" for method, one in tables.items()]
    return "\n\n".join([*parts, TOLD]) + "\n"


def _table(table: ClassTable) -> str:
    lines = [["images \\ mask", "n", _UNMASKED, *map(plain, table.classes)]]
    lines.append(["---", *("---:" for _ in range(len(table.classes) + 2))])
    for i, (name, images, (unmasked, *row)) in enumerate(_rows(table)):
        cells = [f"**{_shown(v)}**" if i == j else _shown(v) for j, v in enumerate(row)]
        lines.append([plain(name), str(images), _shown(unmasked), *cells])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{_summary(table)}"


def matrices(tables: ClassTables) -> list[str]:
    """Parts of a page: each table with a colour behind each number."""
    parts = [matrix(title_of(method), table) for method, table in tables.items()]
    return ["<h2>Image class × mask class</h2>", *parts]


def matrix(title: str, table: ClassTable) -> str:
    """One of them."""
    names = _UNMASKED, *table.classes
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    rows = [
        f"<tr><th scope=row>{escape(name)}</th><td>{images}</td>{''.join(map(_cell, row))}</tr>"
        for name, images, row in _rows(table)
    ]
    return (
        f"<div class=scroll><table class=matrix><caption><b>{escape(title)}.</b> {TOLD} "
        f"{_summary(table)}</caption><thead><tr><td></td><th scope=col>images</th>{head}</tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _rows(table: ClassTable) -> list[tuple[str, int, list[float]]]:
    """The name of each image class, its images, and its numbers, that without a mask first."""
    every = np.column_stack([table.unmasked, table.means])
    numbers = table.images.tolist(), every.tolist()
    return list(zip(table.classes, *numbers, strict=True))


def _cell(value: float) -> str:
    if not np.isfinite(value):
        return "<td>–</td>"
    colour = heat_map(np.array([[value]]))[0, 0]
    ink = "#000" if colour @ [0.299, 0.587, 0.114] > _LIGHT else "#fff"
    return f'<td style="background:{in_hex(colour)};color:{ink}">{value:.2f}</td>'


def _shown(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _summary(table: ClassTable) -> str:
    on, off = table.diagonal()
    rest = f", elsewhere {off:.3f}" if np.isfinite(off) else ""
    return f"On the diagonal it is {_shown(on)}{rest}."
