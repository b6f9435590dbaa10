"""Which scores agree on which method is better?

python tools/compare_scores.py EVALUATED [EVALUATED …]

EVALUATED are work directories of `config.task=evaluate`. For each pair of scores that all of them
have, the table gives the rank correlation of what they say of the methods (their means, better
ones first), averaged over the directories: 1 where two scores order the methods alike, −1 where one
prefers what the other rejects. Methods without one of the two scores are left out, and scores
of which neither way is better.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from ltx_jax.errors import InputError
from ltx_jax.files import read_json
from ltx_jax.metrics import SCORES
from ltx_jax.reporting.evaluation import EVALUATION

# Means of each method by score.
Methods = Mapping[str, Mapping[str, float]]
_FEWEST = 3  # methods that can be ordered in more ways than two


def main() -> int:
    """Print the table; 2 where a directory holds no evaluation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluated", nargs="+", type=Path, help="work directories of evaluations")
    try:
        cases = [read_methods(path) for path in parser.parse_args().evaluated]
        print(table(cases))
    except InputError as error:
        print(f"compare_scores: {error}", file=sys.stderr)
        return 2
    return 0


def read_methods(directory: Path) -> Methods:
    """The means that an evaluation has found.

    Raises:
      InputError: where there is none, or it has too few methods.
    """
    path = directory / EVALUATION
    if not path.exists():
        raise InputError(f"no {path}: give the work directory of config.task=evaluate")
    methods = {
        name: {score: value["mean"] for score, value in scores.items()}
        for name, scores in read_json(path)["methods"].items()
    }
    if len(methods) < _FEWEST:
        raise InputError(f"{path} has {len(methods)} methods: expected at least {_FEWEST}")
    return methods


def table(cases: Sequence[Methods]) -> str:
    """A row and a column a score.

    Raises:
      InputError: where the cases have no two scores in common.
    """
    common = set.intersection(*({s for m in case.values() for s in m} for case in cases))
    names = [name for name in SCORES if name in common and SCORES[name].better]
    if len(names) < 2:
        raise InputError("the evaluations have no two scores in common: give config.scores to each")
    agreement = np.mean([agreements(case, names) for case in cases], axis=0)
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{i:>7}" for i in range(1, len(names) + 1))]
    for i, name in enumerate(names):
        cells = "".join(f"{value:7.2f}" for value in agreement[i, : i + 1])
        lines.append(f"{name:{width}}{cells}  ({i + 1})")
    return "\n".join(lines)


def agreements(case: Methods, names: Sequence[str]) -> Float[np.ndarray, "s s"]:
    """Rank correlation over the methods of each pair of scores, NaN where it is not defined."""
    signs = [1 if SCORES[name].better == "higher" else -1 for name in names]
    columns = np.array([[m.get(name, np.nan) for m in case.values()] for name in names])
    columns *= np.array(signs)[:, None]
    return np.array([[_correlation(a, b) for b in columns] for a in columns])


def _correlation(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " m"]) -> float:
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if len(a) < _FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    sys.exit(main())
