"""Compare two runs on the same images: what a setting, a machine or a version changes.

python tools/compare.py RUN OTHER

RUN and OTHER are work directories of finished runs. For each method that both have, rivals
included, the table gives the scores of RUN (means), and what OTHER adds to them: the mean of the
paired differences with its standard error over the images; then within what half of the masks lie,
and all of them. Images that only one of them has, or of which they explain different classes, are
left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltx_jax.errors import InputError
from ltx_jax.metrics import SCORES
from ltx_jax.reporting.lines import Record
from ltx_jax.reporting.records import column
from ltx_jax.reporting.store import ResultStore

_WIDTH = 22  # of a column of scores


class Run(NamedTuple):
    """The explanations of a work directory, in order of rows: records, and of each method the masks
    [rows,…] of the whole run."""

    records: list[Record]
    masks: dict[str, np.ndarray]

    def values(self, method: str, score: str) -> np.ndarray:
        """A score of each explanation [n]; NaN where it is not known."""
        found = [record.get(method, {}).get(score) for record in self.records]
        return SCORES[score].of_each(column(found))


def main() -> int:
    """Print the comparison; 2 where the two cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the work directory of a finished run")
    parser.add_argument("other", type=Path, help="that of another on the same images")
    arguments = parser.parse_args()
    try:
        print(comparison(*paired(arguments.run, arguments.other)))
    except InputError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 0


def paired(first: Path, second: Path) -> tuple[Run, Run]:
    """The two runs, cut to the methods that both have and the images of which both explain the same
    class.

    Raises:
      InputError: where one is no work directory, or they explain other images.
    """
    stores = ResultStore.find(first), ResultStore.find(second)
    methods = [name for name in stores[0].names() if name in stores[1].names()]
    run, other = (_read(store, methods) for store in stores)
    for name in methods:
        shape, other_shape = (one.masks[name].shape[1:] for one in (run, other))
        if shape != other_shape:
            raise InputError(
                f"masks called {name} are {shape} in {first} and {other_shape} in {second}: give "
                "two runs with masks of one size"
            )
    both = _shared(run.records, other.records)
    for one, another in both:
        if one["image"] != another["image"]:
            raise InputError(
                f"row {one['row']} is {one['image']} in {first} and {another['image']} in {second}:"
                " give two runs on the same images"
            )
    both = [(one, another) for one, another in both if one["class"] == another["class"]]
    if len(both) < 2:
        raise InputError(
            f"{first} and {second} share {len(both)} explanations: give two finished runs"
        )
    records, others = map(list, zip(*both, strict=True))
    return run._replace(records=records), other._replace(records=others)


def comparison(run: Run, other: Run) -> str:
    """What the docstring of this file says, as text."""
    scores = [score for score in SCORES.values() if _both_know(run, other, score.name)]
    width = max(map(len, run.masks), default=0)
    columns = "".join(f"{score.title:>{_WIDTH}}" for score in scores)
    lines = [f"{'':{width}}{columns}{'masks apart: half, all':>26}"]
    for method in run.masks:
        cells = "".join(
            f"{_added(run.values(method, score.name), other.values(method, score.name)):>{_WIDTH}}"
            for score in scores
        )
        lines.append(f"{method:{width}}{cells}{_apart(run, other, method):>26}")
    both = zip(run.records, other.records, strict=True)
    same = sum(before.get("steps") == after.get("steps") for before, after in both)
    n = len(run.records)
    return "\n".join([*lines, f"{n} explanations, {same} of them with the same number of steps"])


def _shared(records: Sequence[Record], others: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The records of the rows that are in both."""
    by_row = {record["row"]: record for record in others}
    return [(one, by_row[one["row"]]) for one in records if one["row"] in by_row]


def _both_know(run: Run, other: Run, score: str) -> bool:
    return any(
        np.isfinite(run.values(method, score) - other.values(method, score)).any()
        for method in run.masks
    )


def _added(before: np.ndarray, after: np.ndarray) -> str:
    """Mean and paired difference, over the images of which both are known."""
    added = after - before
    known = np.isfinite(added)
    n = int(known.sum())
    if n < 2:
        return "–"
    error = added[known].std(ddof=1) / n**0.5
    return f"{before[known].mean():.2f} {added[known].mean():+.2f} ± {error:.2f}"


def _apart(run: Run, other: Run, method: str) -> str:
    """The greatest difference within each mask: the median and the greatest of all."""
    masks, others = run.masks[method], other.masks[method]
    rows = [record["row"] for record in run.records]
    apart = np.array([np.abs(masks[row] - others[row]).max() for row in rows])
    known = apart[np.isfinite(apart)]
    return f"{np.median(known):.1e}, {known.max():.1e}" if len(known) else "–"


def _read(store: ResultStore, methods: list[str]) -> Run:
    records = store.joined(store.records(), methods)
    done = [record for record in records if "skipped" not in record]
    # As they stand in the records; those without scores last.
    places = list(done[0]) if done else []
    ordered = sorted(methods, key=lambda name: (name not in places, [*places, name].index(name)))
    return Run(done, {name: store.masks(name).load() for name in ordered})


if __name__ == "__main__":
    sys.exit(main())
