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
from ltx_jax.reporting.records import FOR_LABEL, NOT_FINITE, Record
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
    lines: Mapping[str, Sequence[Record]],
    names: Sequence[str],
    reference: str | None,
    scored_for: str,
    facts: Mapping[str, Any],
    images: Iterable[SameImage],
    merged: Mapping[str, Sequence[Record]] | None = None,
    class_tables: ClassTables | None = None,
    left_out: int = 0,
) -> dict[str, Comparison]:
    """Write `scores.jsonl`, `table.md`, `table.csv`, `table.tex`, the page and `evaluation.json`.

    Args:
      directory: to write to.
      lines: of each method, a line a row.
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
    scored, of_images = _without_skipped(lines), _without_skipped(merged or {})
    comparisons = _comparisons(scored, of_images, names, reference, scored_for)
    skipped = {one["row"]: one["skipped"] for f in lines.values() for one in f if "skipped" in one}
    constant = {name: sum(NOT_FINITE in one for one in found) for name, found in scored.items()}
    constant = {name: count for name, count in constant.items() if count}
    if merged:
        _write_lines(directory / f"{MERGED}.jsonl", of_images)
    _write_lines(directory / SCORED, scored, names)
    for ending, table in (("md", markdown), ("csv", comma_separated), ("tex", latex)):
        write_bytes(directory / f"table.{ending}", table(comparisons).encode(errors="replace"))
    for ending, text in (("md", matrix_markdown), ("csv", matrix_csv)) if class_tables else ():
        content = text(class_tables).encode(errors="replace")
        write_bytes(directory / f"class_table.{ending}", content)
    title = f"How {facts.get('explainee.name', 'the network')} is explained"
    count = len({one["row"] for found in scored.values() for one in found})
    told = remarks(len(lines), count, len(skipped), constant)
    told += about_left_out(left_out, len(names))
    write_evaluation_page(directory / PAGE, title, comparisons, told, facts, images, class_tables)
    # Last: its presence says that everything else is there.
    found = {"rows": len(names), "skipped": len(skipped), "not_finite": constant}
    if left_out:
        found["left_out"] = left_out
    found |= _as_json(comparisons[_ABOUT[scored_for]])
    for key, about in ((FOR_LABEL, _ABOUT["label"]), (MERGED, _ABOUT[MERGED])):
        if about in comparisons and about != _ABOUT[scored_for]:
            found[key] = _as_json(comparisons[about])
    if class_tables:
        found["class_tables"] = {name: one.as_json() for name, one in class_tables.items()}
    write_json(directory / EVALUATION, found)
    return comparisons


def _comparisons(
    scored: Mapping[str, Sequence[Record]],
    merged: Mapping[str, Sequence[Record]],
    names: Sequence[str],
    reference: str | None,
    scored_for: str,
) -> dict[str, Comparison]:
    """By what was scored: each row for its class, where two were scored also for the label, and
    merged masks."""
    found = {_ABOUT[scored_for]: compare(scored, reference, names)}
    if scored_for == "both":
        by_label = {
            name: [{"row": one["row"]} | one[FOR_LABEL] for one in each if FOR_LABEL in one]
            for name, each in scored.items()
        }
        found[_ABOUT["label"]] = compare(by_label, reference, names)
    if merged:
        found[_ABOUT[MERGED]] = compare(merged, reference)
    return found


def remarks(methods: int, scored: int, skipped: int, constant: Mapping[str, int]) -> list[str]:
    """What was scored, and what was not as it should be, a line each."""
    told = [f"{methods} methods · {scored} rows scored" + f", {skipped} skipped" * (skipped > 0)]
    return told + [
        f"{count} masks of {name} are not finite, and were scored as constant ones"
        for name, count in constant.items()
    ]


def about_left_out(left_out: int, rows: int) -> list[str]:
    """A line that says how many of the rows were left out, and what to do; none where none was."""
    if not left_out:
        return []
    return [
        f"{left_out} of {rows} rows have no maps and were left out: where a run makes these, let "
        "it go on to its end"
    ]


def _as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "reference": comparison.reference,
        "methods": comparison.methods,
        "scored": comparison.counts,
        "differences": comparison.differences,
    }


def _without_skipped(lines: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    return {name: [one for one in found if "skipped" not in one] for name, found in lines.items()}


def _write_lines(
    path: Path, scored: Mapping[str, Sequence[Record]], names: Sequence[str] | None = None
) -> None:
    """A line a row and method, with the names of the rows where these are given."""
    with replacing(path) as file:
        for method, found in scored.items():
            for line in found:
                told = {"method": method} | ({"image": names[line["row"]]} if names else {})
                told |= {k: v for k, v in line.items() if k != "map"}
                file.write(encode_json(json.dumps(told, ensure_ascii=False) + "\n"))
