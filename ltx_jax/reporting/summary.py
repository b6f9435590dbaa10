"""A run's scores in one table: means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ltx_jax.metrics.directions import DIRECTIONS

if TYPE_CHECKING:
    from jaxtyping import Float

Interval = dict[str, float]
_RESAMPLES = 1000


def interval(values: Float[np.ndarray, " n"]) -> Interval:
    """Mean of the values and its 95 % bootstrap percentile interval, over 1000 resamples."""
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    means = [rng.choice(values, len(values)).mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        name: round(float(value), 4)
        for name, value in (("mean", values.mean()), ("low", low), ("high", high))
    }


def summarise(
    records: Sequence[Mapping[str, Any]], masks: Sequence[str]
) -> dict[str, dict[str, Interval]]:
    """For each mask name the interval of each score, over the records that were not skipped."""
    done = [record for record in records if "skipped" not in record]
    return {mask: _intervals([record[mask] for record in done]) for mask in masks}


def label_summary(
    records: Sequence[Mapping[str, Any]], masks: Sequence[str]
) -> dict[str, dict[str, Interval]]:
    """The same for the label; where it is the class explained, that class's scores are the
    label's. Empty without labels."""
    labelled = [r for r in records if "skipped" not in r and r["label"] is not None]
    return {
        mask: _intervals([r.get("for_label", r)[mask] for r in labelled])
        for mask in masks
        if labelled
    }


def table(rows: Mapping[str, Mapping[str, Interval]]) -> str:
    """Plain text: a row a method, a column a score with its direction, mean and interval."""
    scores = [s for s in DIRECTIONS if any(s in row for row in rows.values())]
    head = ["", *(f"{s.upper()} {DIRECTIONS[s].arrow}" for s in scores)]
    body = [[name, *(_cell(row.get(s)) for s in scores)] for name, row in rows.items()]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    )


def _cell(value: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:.2f} ({value['low']:.1f}–{value['high']:.1f})"


def _intervals(scores: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    if not scores:
        return {}
    return {
        name: interval(np.array([score[name] for score in scores]))
        for name in DIRECTIONS
        if all(name in score for score in scores)
    }
