"""Compare two runs on the same images: what a setting, a machine or a version changes.

python tools/compare.py RUN OTHER

RUN and OTHER are work directories of finished runs. For each kind of mask the table gives the
scores of RUN (means in percent), and what OTHER adds to them: the mean of the paired differences
with its standard error over the images; then within what half of the masks lie, and all of them.
Images that only one of them has, or of which they explain different classes, are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltx_jax.engine.explain import SCORES
from ltx_jax.engine.finetune import MASKS
from ltx_jax.errors import InputError
from ltx_jax.reporting.store import MASK_FILE, read_records


class Run(NamedTuple):
    """The explanations of a work directory: records, and masks [n,4,g,h], in order of rows."""

    records: list[dict[str, Any]]
    masks: np.ndarray


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
    """The two runs, cut to the images of which both explain the same class.

    Raises:
      InputError: where one is no work directory, or they explain other images.
    """
    (records, masks), (others, other_masks) = map(_read, (first, second))
    if masks.shape[1:] != other_masks.shape[1:]:
        raise InputError(
            f"masks are {masks.shape[1:]} in {first} and {other_masks.shape[1:]} in {second}: give "
            "two runs with masks of one size"
        )
    rows = sorted(records.keys() & others.keys())
    for row in rows:
        asked, answered = records[row]["image"], others[row]["image"]
        if asked != answered:
            raise InputError(
                f"row {row} is {asked} in {first} and {answered} in {second}: give two runs on the "
                "same images"
            )
    rows = [row for row in rows if records[row]["class"] == others[row]["class"]]
    if len(rows) < 2:
        raise InputError(
            f"{first} and {second} share {len(rows)} explanations: give two finished runs"
        )
    return (
        Run([records[row] for row in rows], masks[rows]),
        Run([others[row] for row in rows], other_masks[rows]),
    )


def comparison(run: Run, other: Run) -> str:
    """What the docstring of this file says, as text."""
    n = len(run.records)
    columns = "".join(f"{score.upper():>20}" for score in SCORES)
    lines = [f"{'':9}{columns}{'masks apart: half, all':>26}"]
    apart = np.abs(run.masks - other.masks).max((2, 3))
    for k, mask in enumerate(MASKS):
        cells = ""
        for score in SCORES:
            before, after = (
                np.array([record[mask][score] for record in records])
                for records in (run.records, other.records)
            )
            added = after - before
            error = added.std(ddof=1) / n**0.5
            cells += f"{f'{before.mean():.2f} {added.mean():+.2f} ± {error:.2f}':>20}"
        within = f"{np.median(apart[:, k]):.1e}, {apart[:, k].max():.1e}"
        lines.append(f"{mask:9}{cells}{within:>26}")
    both = zip(run.records, other.records, strict=True)
    same = sum(before["steps"] == after["steps"] for before, after in both)
    return "\n".join([*lines, f"{n} explanations, {same} of them with the same number of steps"])


def _read(directory: Path) -> tuple[dict[int, dict[str, Any]], np.ndarray]:
    try:
        records = read_records(directory)
        masks = np.load(directory / MASK_FILE, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} holds no run ({error}): give the work directory of a finished one"
        ) from error
    return {record["row"]: record for record in records if "skipped" not in record}, masks


if __name__ == "__main__":
    sys.exit(main())
