"""Compare a run with another one, or with the original's PyTorch results, image by image.

python tools/compare_with_pytorch.py RUN OTHER
python tools/compare_with_pytorch.py RUN OBJECTS_PKL [--scores=EVALUATED] [--seconds=S]

RUN and OTHER are work directories of finished runs: what a setting, a machine or a version changes.
For each method that both have, rivals included, the table gives the scores of RUN (means), and what
OTHER adds to them: the mean of the paired differences with its standard error over the images; then
within what half of the masks lie, and all of them. Images that only one of them has, or of which
they explain different classes, are left out.

OBJECTS_PKL is the folder of the original's results N.pkl, of the same images. For each image: what
the original's mask adds to the score that selected it, the correlation of the two masks (Pearson's,
and Spearman's, of the order of pixels), and the steps they are from; then their means, and how long
an image takes. EVALUATED is the work directory of `config.task=evaluate` over that folder, whose
scores are compared as well. The original keeps no times: they are taken from those of its files,
unless S gives the seconds an image took.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltx_jax.engine.recipe import RESULT, result_of
from ltx_jax.errors import InputError
from ltx_jax.files import read_json
from ltx_jax.loading.original_results import OriginalResult, numbers_of, read_result, result_files
from ltx_jax.masks.tokens import upsample
from ltx_jax.metrics import SCORES
from ltx_jax.reporting.evaluation import SCORED
from ltx_jax.reporting.lines import Record
from ltx_jax.reporting.publish import SUMMARY
from ltx_jax.reporting.records import column
from ltx_jax.reporting.store import SETTINGS, ResultStore

_WIDTH = 22  # of a column of scores
_ORIGINAL = "original"
# Seconds between two files in which they may have been copied, but no image explained.
_COPIED = 0.01


def main() -> int:
    """Print the comparison; 2 where the two cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the work directory of a finished run")
    parser.add_argument("other", type=Path, help="that of another, or the original's objects_pkl")
    parser.add_argument("--scores", type=Path, help="where the original's masks were evaluated")
    parser.add_argument("--seconds", type=float, help="that an image took the original")
    arguments = parser.parse_args()
    try:
        if files := result_files(arguments.other):
            print(beside_original(arguments.run, files, arguments.scores, arguments.seconds))
        else:
            print(comparison(*paired(arguments.run, arguments.other)))
    except InputError as error:
        print(f"compare_with_pytorch: {error}", file=sys.stderr)
        return 2
    return 0


# --- Two runs -------------------------------------------------------------------------------------


class Run(NamedTuple):
    """The explanations of a work directory, in order of rows: records, and of each method the masks
    [rows,…] of the whole run."""

    records: list[Record]
    masks: dict[str, np.ndarray]

    def values(self, method: str, score: str) -> np.ndarray:
        """A score of each explanation [n]; NaN where it is not known."""
        found = [record.get(method, {}).get(score) for record in self.records]
        return SCORES[score].of_each(column(found))


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


# --- The original's results -----------------------------------------------------------------------


class Pair(NamedTuple):
    """An image's mask of ours beside the original's.

    Attributes:
      record: ours.
      method: what our mask is called.
      result: the original's.
      evaluated: the scores of the original's mask, where it was evaluated; its class is ours.
      pearson, spearman: correlation of the masks' pixels, and of their ranks; NaN of a constant.
    """

    record: Record
    method: str
    result: OriginalResult
    evaluated: Record
    pearson: float
    spearman: float


def beside_original(
    directory: Path, files: Mapping[int, Path], scores: Path | None, seconds: float | None
) -> str:
    """A run beside the original's results: what the docstring of this file says, as text.

    Raises:
      InputError: where the directory holds no run, or shares no image with the results.
    """
    pairs = original_pairs(directory, files, scores)
    optimized = read_json(directory / SETTINGS).get("finetune.optimize")
    optimized = "neg" if optimized == "neg" else "pos"
    auc = SCORES[optimized].title
    lines = [f"{'image':24}{f'{auc}, added':>{_WIDTH}}{'Pearson':>10}{'Spearman':>10}{'steps':>12}"]
    for pair in pairs:
        ours = pair.record[pair.method].get(optimized)
        added = "–" if ours is None else f"{ours:.2f} {pair.result.auc - ours:+.2f}"
        steps = f"{pair.record[pair.method].get('step', '–')}, {pair.result.step}"
        lines.append(
            f"{pair.record['image'][-23:]:24}{added:>{_WIDTH}}{pair.pearson:10.3f}"
            f"{pair.spearman:10.3f}{steps:>12}"
        )
    means = [_mean([pair.pearson for pair in pairs]), _mean([pair.spearman for pair in pairs])]
    ours = _column([pair.record[pair.method] for pair in pairs], optimized)
    aucs = np.array([pair.result.auc for pair in pairs])
    lines.append(f"{'mean':24}{_added(ours, aucs):>{_WIDTH}}{means[0]:10.3f}{means[1]:10.3f}")
    lines += [
        f"{score.title:24}{_added(*columns):>{_WIDTH}}"
        for score in SCORES.values()
        if np.isfinite(np.sum(columns := _evaluated(pairs, score.name), 0)).any()
    ]
    return "\n".join([*lines, f"{len(pairs)} images; {_speed(directory, files, seconds)}"])


def original_pairs(
    directory: Path, files: Mapping[int, Path], scores: Path | None = None
) -> list[Pair]:
    """Our explanations of which the original has one, too.

    Raises:
      InputError: where there are none, or a result is damaged.
    """
    store = ResultStore.find(directory)
    if not set(RESULT) & set(store.names()):
        raise InputError(f"{directory} holds no masks of LTX: expected {' or '.join(RESULT)}")
    method = result_of(store.names())
    records = store.records()
    numbers = numbers_of([record["image"] for record in records])
    evaluated = {} if scores is None else _scores_of_original(scores)
    pairs, masks = [], store.masks(method)
    for record, number in zip(records, numbers, strict=True):
        if number in files and method in record:
            known = evaluated.get((record["image"], record["class"]), {})
            result = read_result(files[number])
            mask = upsample(masks.row(record["row"]), result.mask.shape)
            alike = correlations(mask, result.mask)
            pairs.append(Pair(record, method, result, known, *alike))
    if not pairs:
        raise InputError(
            f"{directory} explains none of the images of {next(iter(files.values())).parent}: give "
            "a run on the images that the original explained, in its order"
        )
    return pairs


def _scores_of_original(directory: Path) -> dict[tuple[str, int], Record]:
    """The scores of the original's masks by image and class."""
    path = directory / SCORED
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found = {(one["image"], one["class"]): one for one in lines if one["method"] == _ORIGINAL}
    except (OSError, ValueError, KeyError, TypeError):
        found = {}
    if not found:
        raise InputError(
            f"{path} holds no scores of the original's masks: run --config.task=evaluate with "
            "--config.evaluate.masks=OBJECTS_PKL there"
        )
    return found


def correlations(mask: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Pearson's and Spearman's correlation of two masks [H,W]; NaN where one is constant."""
    from scipy.stats import rankdata

    if not mask.std() or not other.std():
        return float("nan"), float("nan")
    ranks = rankdata(mask), rankdata(other)
    return correlation(mask, other), correlation(*ranks)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's, of arrays that are not constant."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _evaluated(pairs: Sequence[Pair], score: str) -> tuple[np.ndarray, np.ndarray]:
    """A score of our masks and of the original's, where both are known."""
    ours = _column([pair.record[pair.method] for pair in pairs], score)
    return ours, _column([pair.evaluated for pair in pairs], score)


def _mean(values: Sequence[float]) -> float:
    """Of those that are known; NaN where none is."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _column(records: Sequence[Record], score: str) -> np.ndarray:
    return SCORES[score].of_each(column([record.get(score) for record in records]))


def _speed(directory: Path, files: Mapping[int, Path], seconds: float | None) -> str:
    """How long an image takes ours and the original."""
    summary = directory / SUMMARY
    rate = read_json(summary).get("images_per_second") if summary.exists() else None
    ours = 1 / rate if rate else None
    theirs = seconds or _seconds_between(files)
    told = [f"{name} {'–' if s is None else f'{s:.3f} s'}" for name, s in
            (("ours", ours), ("the original's", theirs))]  # fmt: skip
    times = f", {theirs / ours:.1f} times as long" if ours and theirs else ""
    return f"an image takes {told[0]}, {told[1]}{times}"


def _seconds_between(files: Mapping[int, Path]) -> float | None:
    """The median time between two results that were written one after another; None where their
    files do not tell, as when they were copied."""
    times = [files[number].stat().st_mtime for number in sorted(files)]
    between = np.diff(times)
    written = len(between) > 0 and between.min() > 0 and np.median(between) > _COPIED
    return float(np.median(between)) if written else None


if __name__ == "__main__":
    sys.exit(main())
