"""Methods compared: each score's mean with its interval, and what it differs from a reference's."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ltx_jax.metrics import SCORES
from ltx_jax.reporting.records import DIGITS, Record
from ltx_jax.reporting.summary import (
    Intervals,
    as_interval,
    resampled,
    rows_by,
    score_intervals,
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
    """

    rows: int
    images: int
    methods: dict[str, Intervals]
    counts: dict[str, dict[str, int]]
    reference: str | None
    differences: dict[str, dict[str, Difference]]
    curves: dict[str, dict[str, list[float]]]

    @property
    def tests(self) -> int:
        """How many tests Holm's correction is for."""
        each = [one for scores in self.differences.values() for one in scores.values()]
        return sum(one["p"] is not None for one in each)


def compare(
    lines: Mapping[str, Sequence[Record]],
    reference: str | None,
    image_of: Sequence[Hashable] | None = None,
) -> Comparison:
    """Compare methods.

    Args:
      lines: of each method, by its rows; other rows than those scored are left out before.
      reference: one of them, or None.
      image_of: the image of each row, those that were not scored among them; a row an image where
        not given.
    """
    rows = set().union(*({line["row"] for line in found} for found in lines.values()))
    of_row = dict(enumerate(image_of)) if image_of is not None else {row: row for row in rows}
    columns = {name: _columns(found) for name, found in lines.items()}
    differences: dict[str, dict[str, Difference]] = {}
    if reference is not None:
        differences = {
            name: _differences(scores, columns[reference], of_row)
            for name, scores in columns.items()
            if name != reference
        }
        _correct(differences)
    return Comparison(
        rows=len(rows),
        images=len({of_row[row] for row in rows}),
        methods={
            name: score_intervals(found, [of_row[line["row"]] for line in found])
            for name, found in lines.items()
        },
        counts={name: {k: len(v) for k, v in scores.items()} for name, scores in columns.items()},
        reference=reference,
        differences=differences,
        curves={name: _mean_curves(found) for name, found in lines.items()},
    )


# A score's values by row; each a number, or counts [c] that `aggregate` puts together.
_Column = dict[int, np.ndarray]


def _columns(lines: Sequence[Record]) -> dict[str, _Column]:
    found: dict[str, _Column] = {}
    for name in SCORES:
        values = {line["row"]: np.asarray(line.get(name), np.float64) for line in lines}
        if known := {row: value for row, value in values.items() if np.isfinite(value).all()}:
            found[name] = known
    return found


def _differences(
    scores: Mapping[str, _Column],
    others: Mapping[str, _Column],
    image_of: Mapping[int, Hashable],
) -> dict[str, Difference]:
    found = {}
    for name, column in scores.items():
        rows = sorted(column.keys() & others.get(name, {}).keys())
        if rows:
            ours, theirs = (np.stack([one[row] for row in rows]) for one in (column, others[name]))
            images = [image_of[row] for row in rows]
            found[name] = paired_difference(ours, theirs, SCORES[name].aggregate, images)
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


def _mean_curves(lines: Sequence[Record]) -> dict[str, list[float]]:
    """Of the lines that have curves, by score."""
    told = [line["curves"] for line in lines if "curves" in line]
    names = told[0] if told else {}
    return {name: np.mean([one[name] for one in told], 0).tolist() for name in names}
