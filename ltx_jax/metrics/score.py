"""What a score declares of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jax import Array

from ltx_jax.errors import InputError

if TYPE_CHECKING:
    from ltx_jax.metrics.case import Case

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Score:
    """A number for each mask.

    Attributes:
      name: in settings, records and summaries.
      title: for people.
      better: which way is better; None where neither is.
      low, high: the range of its values.
      meaning: one line for people.
      source: the paper, or the original's function.
      values: to [n,k], for each mask and class, or [n,1]; traced by JAX. Of a score that is pooled
        [n,k,c] or [n,1,c], numbers of which only all images' make the score.
      column: its place in tables, low ones first.
      aggregate: of many masks' values [n] or [n,c] to one.
      usual: computed unless others are asked for.
      needs_truth: only where the object's pixels are known; values elsewhere are NaN.
      needs_other: another image beside each; values are NaN where there is none.
      needs_interventions: only where images can be made again without one of their parts.
    """

    name: str
    title: str
    better: Better | None
    low: float | int
    high: float | int
    meaning: str
    source: str
    values: Callable[[Case], Array]
    column: int = 100
    aggregate: Callable[[np.ndarray], Any] = np.mean
    usual: bool = True
    needs_truth: bool = False
    needs_other: bool = False
    needs_interventions: bool = False

    @property
    def arrow(self) -> str:
        """↓ or ↑, the better way; nothing where neither is."""
        return "" if self.better is None else "↓" if self.better == "lower" else "↑"

    @property
    def heading(self) -> str:
        """The title with the better way."""
        return f"{self.title} {self.arrow}".rstrip()

    def of_each(self, values: np.ndarray) -> np.ndarray:
        """The score of each mask alone, [n], of its values [n] or [n,c]; NaN where unknown."""
        if values.ndim == 1:
            return values
        known = ~np.isnan(values).any(-1)
        alone = [
            self.aggregate(row[None]) if k else np.nan for row, k in zip(values, known, strict=True)
        ]
        return np.array(alone, np.float64)


def chosen_scores(
    scores: dict[str, Score],
    further: Iterable[str] | None,
    truth: bool,
    interventions: bool = False,
) -> tuple[str, ...]:
    """Names of the usual scores and of further ones, a single one among them; those that nobody
    asked for and that need the truth where it is known.

    Raises:
      InputError: for an unknown name, or a further score that needs what is not there.
    """
    asked = [further] if isinstance(further, str) else list(further or ())
    for name in asked:
        if name not in scores:
            raise InputError(f"unknown score {name!r}: there are {', '.join(scores)}")
        if scores[name].needs_truth and not truth:
            raise InputError(
                f"{name} needs truth=… of evaluate, the pixels of objects, or a data set that has "
                "them: give it, or leave the score out"
            )
        if scores[name].needs_interventions and not interventions:
            raise InputError(
                f"{name} needs images that can be made again without one of their parts, as those "
                "of config.images=scenes: leave the score out"
            )
    return tuple(
        score.name
        for score in scores.values()
        if (score.usual or score.name in asked)
        and (truth or not score.needs_truth)
        and (interventions or not score.needs_interventions)
    )
