"""An evaluation made presentable: lines, tables and a page, from the scores of each method."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltx_jax.files import encode_json, make_directory, replacing, write_bytes, write_json
from ltx_jax.reporting.class_table import ClassTables
from ltx_jax.reporting.class_table import comma_separated as matrix_csv
from ltx_jax.reporting.class_table import markdown as matrix_markdown
from ltx_jax.reporting.comparison import Comparison, compare
from ltx_jax.reporting.evaluation_page import SameImage, write_evaluation_page
from ltx_jax.reporting.records import FOR_LABEL, Record
from ltx_jax.reporting.tables import comma_separated, latex, markdown

PAGE, EVALUATION, SCORED = "evaluation.html", "evaluation.json", "scores.jsonl"
MERGED = "merged"
_ABOUT: dict[str, str] = {
    "explained": "the class explained",
    "predicted": "the predicted class",
    "label": "the label",
    "both": "the predicted class",
    MERGED: "all classes of an image, their masks merged",
}


def publish_evaluation(
    directory: Path,
    lines: Mapping[str, Iterable[Record]],
    names: Sequence[str],
    reference: str | None,
    scored_for: str,
    facts: Mapping[str, Any],
    images: Iterable[SameImage],
    merged: Mapping[str, Iterable[Record]] | None = None,
    class_tables: ClassTables | None = None,
    left_out: int = 0,
) -> dict[str, Comparison]:
    """Write `scores.jsonl`, `table.md`, `table.csv`, `table.tex`, the page and `evaluation.json`.

    Args:
      directory: to write to.
      lines: of each method, a line a row; gone through several times.
      names: of the rows.
      reference: the method that others are compared with, if any.
      scored_for: the class that was scored for.
      facts: settings, shown as they are.
      images: for the page.
      merged: of each method, and of the yardsticks, a line an image whose masks were merged; they
        are compared beside the others, and written to `merged.jsonl`.
      class_tables: image class × mask class, written to `class_table.md` and `.csv`.
      left_out: how many of the rows have no maps.

    Returns:
      The comparisons by class.

    Raises:
      InputError: where the disk does not take it.
    """
    make_directory(directory)
    class_tables = class_tables or {}
    comparisons = _comparisons(lines, merged or {}, names, reference, scored_for)
    of_rows = comparisons[_ABOUT[scored_for]]
    if merged:
        _write_lines(directory / f"{MERGED}.jsonl", merged)
    _write_lines(directory / SCORED, lines, names)
    for ending, table in (("md", markdown), ("csv", comma_separated), ("tex", latex)):
        write_bytes(directory / f"table.{ending}", table(comparisons).encode(errors="replace"))
    for ending, text in (("md", matrix_markdown), ("csv", matrix_csv)) if class_tables else ():
        content = text(class_tables).encode(errors="replace")
        write_bytes(directory / f"class_table.{ending}", content)
    title = f"How {facts.get('explainee.name', 'the network')} is explained"
    told = [_how_many(of_rows), *remarks(of_rows, left_out, len(names))]
    write_evaluation_page(directory / PAGE, title, comparisons, told, facts, images, class_tables)
    # Last: its presence says that everything else is there.
    found = {"rows": len(names), "skipped": of_rows.skipped, "not_finite": of_rows.not_finite}
    if left_out:
        found["left_out"] = left_out
    found |= _as_json(of_rows)
    for key, about in ((FOR_LABEL, _ABOUT["label"]), (MERGED, _ABOUT[MERGED])):
        if about in comparisons and about != _ABOUT[scored_for]:
            found[key] = _as_json(comparisons[about])
    if class_tables:
        found["class_tables"] = {name: one.as_json() for name, one in class_tables.items()}
    write_json(directory / EVALUATION, found)
    return comparisons


def _comparisons(
    lines: Mapping[str, Iterable[Record]],
    merged: Mapping[str, Iterable[Record]],
    names: Sequence[str],
    reference: str | None,
    scored_for: str,
) -> dict[str, Comparison]:
    """By what was scored: each row for its class, where two were scored also for the label, and
    merged masks."""
    found = {_ABOUT[scored_for]: compare(lines, reference, names)}
    if scored_for == "both":
        by_label = {
            name: ({"row": one["row"]} | one[FOR_LABEL] for one in each if FOR_LABEL in one)
            for name, each in lines.items()
        }
        found[_ABOUT["label"]] = compare(by_label, reference, names)
    if merged:
        found[_ABOUT[MERGED]] = compare(merged, reference)
    return found


def _how_many(comparison: Comparison) -> str:
    told = f"{len(comparison.methods)} methods · {comparison.rows} rows scored"
    return told + f", {comparison.skipped} skipped" * (comparison.skipped > 0)


def remarks(comparison: Comparison, left_out: int, rows: int) -> list[str]:
    """What is not as it should be, a line each: of the scores of rows, and how many of so many rows
    were left out."""
    told = [
        f"{count} masks of {name} are not finite, and were scored as constant ones"
        for name, count in comparison.not_finite.items()
    ]
    if left_out:
        told.append(
            f"{left_out} of {rows} rows have no maps and were left out: where a run makes these, "
            "let it go on to its end"
        )
    return told


def _as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "reference": comparison.reference,
        "methods": comparison.methods,
        "scored": comparison.counts,
        "differences": comparison.differences,
    }


def _write_lines(
    path: Path, lines: Mapping[str, Iterable[Record]], names: Sequence[str] | None = None
) -> None:
    """A line a row that was scored and method, with the names of the rows where these are given."""
    with replacing(path) as file:
        for method, found in lines.items():
            for line in (one for one in found if "skipped" not in one):
                told = {"method": method} | ({"image": names[line["row"]]} if names else {})
                told |= {k: v for k, v in line.items() if k != "map"}
                file.write(encode_json(json.dumps(told, ensure_ascii=False) + "\n"))
