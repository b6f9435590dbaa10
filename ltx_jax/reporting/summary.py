"""A run's scores in one table: means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from ltx_jax.metrics import SCORES
from ltx_jax.metrics.score import Score
from ltx_jax.reporting.records import column

Interval = dict[str, float]
Intervals = dict[str, Interval]
_RESAMPLES = 1000
_AT_ONCE = 2**20  # images drawn: 8 MB


def interval(
    values: Sequence[Any] | np.ndarray,
    aggregate: Callable[[np.ndarray], Any] = np.mean,
    images: Sequence[Hashable] | None = None,
) -> Interval:
    """Mean of the known values and its 95 % bootstrap percentile interval, over 1000 resamples.

    Args:
      values: [n], or [n,c] of a score that is pooled; NaN or None where nothing is known; one of
        them is.
      aggregate: what is taken for the mean, of [n] or [n,c] values.
      images: which image each is of, see `resampled`.
    """
    numbers: np.ndarray = column(list(values))
    known = is_known(numbers)
    of_known = None if images is None else [*compress(images, known)]
    there = numbers[known]
    return as_interval(aggregate(there), resampled(there, aggregate, of_known))


def resampled(
    values: np.ndarray,
    aggregate: Callable[[np.ndarray], Any] = np.mean,
    images: Sequence[Hashable] | None = None,
) -> np.ndarray:
    """The aggregate of each of 1000 resamples of values [n] or [n,c].

    Images are drawn, each with all of its values: those of one image are no independent ones. They
    are drawn alike for every array of the same images.

    Args:
      values: of rows.
      aggregate: of rows to one number.
      images: which image each row is of; one of its own where not given.
    """
    of_image = rows_by(images or range(len(values)))
    n, rng, found = len(of_image), np.random.default_rng(0), []
    sums = np.array([values[rows].sum() for rows in of_image])
    counts = np.array([values[rows].size for rows in of_image])
    together = min(max(_AT_ONCE // n, 1), _RESAMPLES)
    for first in range(0, _RESAMPLES, together):
        drawn = rng.integers(n, size=(min(together, _RESAMPLES - first), n))
        if aggregate is np.mean:  # of every score of every method: a call for each would be slow
            found.append(sums[drawn].sum(1) / counts[drawn].sum(1))
        else:
            each = ([row for image in images for row in of_image[image]] for images in drawn)
            found.append(np.array([aggregate(values[rows]) for rows in each]))
    return np.concatenate(found)


def rows_by(images: Iterable[Hashable]) -> list[list[int]]:
    """The rows of each image, in the order of their first.

    Args:
      images: which one each row is of.
    """
    found: dict[Hashable, list[int]] = {}
    for row, image in enumerate(images):
        found.setdefault(image, []).append(row)
    return list(found.values())


def as_interval(value: float, resampled: Sequence[float] | np.ndarray) -> Interval:
    """A value with the 95 % percentile interval of what resampling makes of it."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    named = {"mean": value, "low": low, "high": high}
    return {name: round(float(number), 4) for name, number in named.items()}


def summarise(records: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Intervals]:
    """For each method the interval of each score, over the records that have it."""
    return {
        name: score_intervals(
            [record[name] for record in records if name in record],
            [record["image"] for record in records if name in record],
        )
        for name in names
    }


def label_summary(
    records: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> dict[str, Intervals]:
    """The same for the label; where it is the class explained, that class's scores are the
    label's. Empty without labels, and without the scores that only the class explained has."""
    there = [record for record in records if record.get("label") is not None]
    labelled = [record.get("for_label", record) for record in there]
    images = [record["image"] for record in there]
    found = {}
    for name in names if labelled else ():
        scores = [record[name] for record in labelled]
        everywhere = set.intersection(*map(set, scores))
        each = [{key: one[key] for key in everywhere} for one in scores]
        found[name] = score_intervals(each, images)
    return found


def score_intervals(
    scores: Sequence[Mapping[str, Any]], images: Sequence[Hashable] | None = None
) -> Intervals:
    """The interval of each score over those of n masks, by name, that have it; others are left
    out.

    Args:
      scores: of each mask.
      images: which image each is of, see `resampled`.
    """
    columns = {name: column([one.get(name) for one in scores]) for name in SCORES}
    return column_intervals(columns, images)


def column_intervals(
    columns: Mapping[str, np.ndarray], images: Sequence[Hashable] | None = None
) -> Intervals:
    """The same of columns by score, [n] or [n,c], NaN where a mask has it not."""
    return {
        name: interval(values, SCORES[name].aggregate, images)
        for name, values in columns.items()
        if is_known(values).any()
    }


def scores_in(methods: Mapping[str, Mapping[str, Any]]) -> list[Score]:
    """The scores that any method has, in the order of tables."""
    there = set().union(*methods.values())
    return [score for score in SCORES.values() if score.name in there]


def table(rows: Mapping[str, Mapping[str, Interval]]) -> str:
    """Plain text: a row a method, a column a score with its direction, mean and interval."""
    scores = scores_in(rows)
    head = ["", *(score.heading for score in scores)]
    body = [[name, *(_cell(row.get(s.name)) for s in scores)] for name, row in rows.items()]
    return aligned([head, *body])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(value: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:.2f} ({value['low']:.1f}–{value['high']:.1f})"


def is_known(values: np.ndarray) -> np.ndarray:
    """Which of [n] or [n,c] values are numbers."""
    return ~np.isnan(values).any(tuple(range(1, values.ndim)))
