"""Methods compared: each score's mean with its interval, and what it differs from a reference's."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ltx_jax.metrics import SCORES
from ltx_jax.reporting.records import DIGITS, NOT_FINITE, Record, column
from ltx_jax.reporting.summary import (
    Intervals,
    as_interval,
    column_intervals,
    is_known,
    resampled,
    rows_by,
)

Difference = dict[str, float | int | None]
# A method's scores that differ this surely are marked.
LEVEL = 0.05


class Comparison(NamedTuple):
    """All methods on the same rows, scored for one class of each.

    Attributes:
      rows: how many were scored.
      images: how many these are of.
      methods: intervals by method and score.
      counts: the rows [method][score] rests on.
      reference: the method that others are compared with; None where there is none.
      differences: by method and score, the mean of a method's value less the reference's over the
        rows that both have, its interval, the number `n` of these rows, and where a row's value is
        a number the p of Wilcoxon's signed-rank test of the images' mean differences, as it is
        (`p`) and by Holm's correction for all of them (`p_holm`).
      curves: the mean perturbation curve by method and score.
      skipped: how many rows could not be scored.
      not_finite: how many masks of a method were no numbers, for those that had such.
    """

    rows: int
    images: int
    methods: dict[str, Intervals]
    counts: dict[str, dict[str, int]]
    reference: str | None
    differences: dict[str, dict[str, Difference]]
    curves: dict[str, dict[str, list[float]]]
    skipped: int
    not_finite: dict[str, int]

    @property
    def tests(self) -> int:
        """How many tests Holm's correction is for."""
        each = [one for scores in self.differences.values() for one in scores.values()]
        return sum(one["p"] is not None for one in each)


def compare(
    lines: Mapping[str, Iterable[Record]],
    reference: str | None,
    image_of: Sequence[Hashable] | None = None,
) -> Comparison:
    """Compare methods.

    Args:
      lines: of each method, by its rows, gone through once; those of skipped rows are counted.
      reference: one of them, or None.
      image_of: the image of each row, those that were not scored among them; a row an image where
        not given.
    """
    columns = {name: _columns(each) for name, each in lines.items()}
    rows = set().union(*(one.rows.tolist() for one in columns.values()))
    of_row = dict(enumerate(image_of)) if image_of is not None else {row: row for row in rows}
    differences: dict[str, dict[str, Difference]] = {}
    if reference is not None:
        differences = {
            name: _differences(one, columns[reference], of_row)
            for name, one in columns.items()
            if name != reference
        }
        _correct(differences)
    return Comparison(
        rows=len(rows),
        images=len({of_row[row] for row in rows}),
        methods={
            name: column_intervals(one.scores, [of_row[row] for row in one.rows.tolist()])
            for name, one in columns.items()
        },
        counts={
            name: {score: int(is_known(values).sum()) for score, values in one.scores.items()}
            for name, one in columns.items()
        },
        reference=reference,
        differences=differences,
        curves={name: one.curves for name, one in columns.items()},
        skipped=len(set().union(*(one.skipped for one in columns.values()))),
        not_finite={name: one.not_finite for name, one in columns.items() if one.not_finite},
    )


class _Columns(NamedTuple):
    """What a method scored, as little as a comparison needs.

    Attributes:
      rows: that were scored.
      scores: by name, of those that any row has: [n], or [n,c] of counts that `aggregate` puts
        together; NaN where unknown.
      curves: the mean perturbation curve by score, over the rows that have one.
      skipped: the rows that were not scored.
      not_finite: how many masks were no numbers.
    """

    rows: Int[np.ndarray, " n"]
    scores: dict[str, Float[np.ndarray, "n ..."]]
    curves: dict[str, list[float]]
    skipped: set[int]
    not_finite: int


def _columns(lines: Iterable[Record]) -> _Columns:
    rows, skipped, not_finite = [], set(), 0
    values: dict[str, list[Any]] = {name: [] for name in SCORES}
    curves: dict[str, np.ndarray] = {}
    with_curves = 0
    for line in lines:
        if "skipped" in line:
            skipped.add(line["row"])
            continue
        rows.append(line["row"])
        not_finite += NOT_FINITE in line
        for name, told in values.items():
            told.append(line.get(name))
        with_curves += "curves" in line
        for name, curve in line.get("curves", {}).items():
            curves[name] = curves.get(name, 0.0) + np.array(curve)
    scores = {name: column(told) for name, told in values.items()}
    return _Columns(
        np.array(rows, np.int64),
        {name: told for name, told in scores.items() if is_known(told).any()},
        {name: (total / with_curves).tolist() for name, total in curves.items()},
        skipped,
        not_finite,
    )


def _differences(
    one: _Columns, other: _Columns, image_of: Mapping[int, Hashable]
) -> dict[str, Difference]:
    rows, ours, theirs = np.intersect1d(one.rows, other.rows, return_indices=True)
    found = {}
    for name in filter(other.scores.__contains__, one.scores):
        values, reference = one.scores[name][ours], other.scores[name][theirs]
        both = is_known(values) & is_known(reference)
        if both.any():
            images = [image_of[row] for row in rows[both].tolist()]
            aggregate = SCORES[name].aggregate
            found[name] = paired_difference(values[both], reference[both], aggregate, images)
    return found


def paired_difference(
    values: Float[np.ndarray, "n ..."],
    reference: Float[np.ndarray, "n ..."],
    aggregate: Callable[[np.ndarray], Any] = np.mean,
    images: Sequence[Hashable] | None = None,
) -> Difference:
    """What an aggregate of values differs from that of the reference's, with its 95 % bootstrap
    percentile interval over resampled images, and the p of the images' mean differences.

    Args:
      values, reference: of the same n rows: numbers [n], or [n,c] of counts, which have no p.
      aggregate: of many rows to one number.
      images: which image each row is of; one of its own where not given.
    """
    apart = resampled(values, aggregate, images) - resampled(reference, aggregate, images)
    found: Difference = {**as_interval(aggregate(values) - aggregate(reference), apart)}
    each = values - reference
    p = None
    if values.ndim == 1:
        means = [each[rows].mean() for rows in rows_by(images or range(len(each)))]
        # Scores are stored to as many digits; what is left beyond would tell equal sizes apart.
        p = wilcoxon(np.round(means, DIGITS))
    return found | {"n": len(values), "p": p}


def wilcoxon(differences: Float[np.ndarray, " n"]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test (1945) that differences lie about 0.

    Zeros are left out, as Wilcoxon does, and nothing but zeros is no difference at all: 1.
    Exact up to 50 differences where no two are of the same size, else by the normal approximation.
    """
    from scipy.stats import wilcoxon as test

    some = differences[differences != 0]
    if not len(some):
        return 1.0
    exact = len(some) <= 50 and len(np.unique(np.abs(some))) == len(some)
    return float(test(some, method="exact" if exact else "asymptotic").pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Each p of several tests by Holm's correction (1979): below a level, the chance that any test
    of a true null hypothesis is, is at most that level."""
    order = np.argsort(p, kind="stable")
    left = len(p) - np.arange(len(p))
    stepped = np.minimum(np.maximum.accumulate(left * np.asarray(p, np.float64)[order]), 1.0)
    corrected = np.empty(len(p))
    corrected[order] = stepped
    return corrected.tolist()


def _correct(differences: Mapping[str, Mapping[str, Difference]]) -> None:
    """Put Holm's p beside each p of a comparison."""
    each = [one for scores in differences.values() for one in scores.values()]
    tested = [one for one in each if one["p"] is not None]
    for one in each:
        one["p_holm"] = None
    for one, p in zip(tested, holm([float(one["p"] or 0.0) for one in tested]), strict=True):
        one["p_holm"] = p
