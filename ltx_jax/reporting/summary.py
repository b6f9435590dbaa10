"""A run's scores in one table: means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ltx_jax.metrics import SCORES
from ltx_jax.reporting.records import column

Interval = dict[str, float]
Intervals = dict[str, Interval]
_RESAMPLES = 1000
_AT_ONCE = 2**20  # rows drawn: 8 MB


def interval(
    values: Sequence[Any] | np.ndarray,
    aggregate: Callable[[np.ndarray], Any] = np.mean,
) -> Interval:
    """Mean of the known values and its 95 % bootstrap percentile interval, over 1000 resamples.

    Args:
      values: [n], or [n,c] of a score that is pooled; NaN or None where nothing is known; one of
        them is.
      aggregate: what is taken for the mean, of [n] or [n,c] values.
    """
    known = _known(values)
    return as_interval(aggregate(known), resampled(known, aggregate))


def resampled(values: np.ndarray, aggregate: Callable[[np.ndarray], Any] = np.mean) -> np.ndarray:
    """The aggregate of each of 1000 resamples of values [n] or [n,c]; the rows are drawn alike for
    every array of the same n."""
    n, rng, found = len(values), np.random.default_rng(0), []
    together = min(max(_AT_ONCE // n, 1), _RESAMPLES)
    for first in range(0, _RESAMPLES, together):
        drawn = rng.integers(n, size=(min(together, _RESAMPLES - first), n))
        if aggregate is np.mean:  # of every score of every method: a call for each would be slow
            found.append(values[drawn].reshape(len(drawn), -1).mean(1))
        else:
            found.append(np.array([aggregate(values[rows]) for rows in drawn]))
    return np.concatenate(found)


def as_interval(value: float, resampled: Sequence[float] | np.ndarray) -> Interval:
    """A value with the 95 % percentile interval of what resampling makes of it."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    named = {"mean": value, "low": low, "high": high}
    return {name: round(float(number), 4) for name, number in named.items()}


def summarise(records: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Intervals]:
    """For each method the interval of each score, over the records that have it."""
    return {
        name: score_intervals([record[name] for record in records if name in record])
        for name in names
    }


def label_summary(
    records: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> dict[str, Intervals]:
    """The same for the label; where it is the class explained, that class's scores are the
    label's. Empty without labels, and without the scores that only the class explained has."""
    labelled = [
        record.get("for_label", record) for record in records if record.get("label") is not None
    ]
    found = {}
    for name in names if labelled else ():
        scores = [record[name] for record in labelled]
        everywhere = set.intersection(*map(set, scores))
        found[name] = score_intervals([{key: one[key] for key in everywhere} for one in scores])
    return found


def score_intervals(scores: Sequence[Mapping[str, Any]]) -> Intervals:
    """The interval of each score over those of n masks, by name, that have it; others are left
    out."""
    columns = {name: _known([one.get(name) for one in scores]) for name in SCORES}
    return {
        name: interval(known, SCORES[name].aggregate)
        for name, known in columns.items()
        if len(known)
    }


def table(rows: Mapping[str, Mapping[str, Interval]]) -> str:
    """Plain text: a row a method, a column a score with its direction, mean and interval."""
    scores = [score for score in SCORES.values() if any(score.name in row for row in rows.values())]
    head = ["", *(f"{score.title} {score.arrow}" for score in scores)]
    body = [[name, *(_cell(row.get(s.name)) for s in scores)] for name, row in rows.items()]
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


def _known(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    numbers = column(list(values))
    return numbers[~np.isnan(numbers).any(tuple(range(1, numbers.ndim)))]
