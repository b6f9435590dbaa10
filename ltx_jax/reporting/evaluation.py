"""An evaluation made presentable: lines, tables and a page, from the scores of each method."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltx_jax.files import encode_json, write_bytes, write_json
from ltx_jax.reporting.class_table import ClassTable
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
    class_table: ClassTable | None = None,
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
      class_table: image class × mask class, written to `class_table.md` and `.csv`.

    Returns:
      The comparisons by class.

    Raises:
      InputError: where the disk does not take it.
    """
    scored = _without_skipped(lines)
    comparisons = {_ABOUT[scored_for]: compare(scored, reference, names)}
    if scored_for == "both":
        by_label = {
            name: [{"row": one["row"]} | one[FOR_LABEL] for one in found if FOR_LABEL in one]
            for name, found in scored.items()
        }
        comparisons[_ABOUT["label"]] = compare(by_label, reference, names)
    if merged:
        of_images = _without_skipped(merged)
        comparisons[_ABOUT[MERGED]] = compare(of_images, reference)
        _write_lines(directory / f"{MERGED}.jsonl", of_images)
    skipped = {one["row"]: one["skipped"] for f in lines.values() for one in f if "skipped" in one}
    constant = {name: sum(NOT_FINITE in one for one in found) for name, found in scored.items()}
    constant = {name: count for name, count in constant.items() if count}
    named = {
        method: [{"image": names[line["row"]]} | line for line in found]
        for method, found in scored.items()
    }
    _write_lines(directory / SCORED, named)
    for ending, table in (("md", markdown), ("csv", comma_separated), ("tex", latex)):
        write_bytes(directory / f"table.{ending}", table(comparisons).encode(errors="replace"))
    title = f"How {facts.get('explainee.name', 'the network')} is explained"
    told = remarks(len(lines), len(names), len(skipped), constant)
    if class_table is not None:
        for ending, text in (("md", matrix_markdown), ("csv", matrix_csv)):
            content = text(class_table).encode(errors="replace")
            write_bytes(directory / f"class_table.{ending}", content)
    shown = told, facts, images, class_table
    write_evaluation_page(directory / PAGE, title, comparisons, *shown)
    # Last: its presence says that everything else is there.
    found = {"rows": len(names), "skipped": len(skipped), "not_finite": constant}
    found |= _as_json(comparisons[_ABOUT[scored_for]])
    for key, about in ((FOR_LABEL, _ABOUT["label"]), (MERGED, _ABOUT[MERGED])):
        if about in comparisons and about != _ABOUT[scored_for]:
            found[key] = _as_json(comparisons[about])
    if class_table is not None:
        found["class_table"] = class_table.as_json()
    write_json(directory / EVALUATION, found)
    return comparisons


def remarks(methods: int, rows: int, skipped: int, constant: Mapping[str, int]) -> list[str]:
    """What was scored, and what was not as it should be, a line each."""
    told = [
        f"{methods} methods · {rows - skipped} rows scored" + f", {skipped} skipped" * (skipped > 0)
    ]
    return told + [
        f"{count} masks of {name} are not finite, and were scored as constant ones"
        for name, count in constant.items()
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


def _write_lines(path: Path, scored: Mapping[str, Sequence[Record]]) -> None:
    """A line a row and method."""
    each = (
        {"method": method} | {k: v for k, v in line.items() if k != "map"}
        for method, found in scored.items()
        for line in found
    )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in each)
    write_bytes(path, encode_json(text))
