"""What is known of a row, as a line of `results.jsonl` or `scores/NAME.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ltx_jax.engine.explain import Explanation
from ltx_jax.engine.scoring import Value
from ltx_jax.reporting.lines import Record

# Decimals of scores and probabilities that are stored.
DIGITS = 6

# In a record or a line: what is scored for the label where another class comes first, and the mark
# of a mask that was not finite and stands for a constant one.
FOR_LABEL, NOT_FINITE = "for_label", "not_finite"


def record(
    explanation: Explanation, image: str, row: int, class_names: Sequence[str] = ()
) -> Record:
    """One image's results in JSON's types; scores in percent, rounded to what is meaningful."""
    entry: Record = {
        "row": row,
        "image": image,
        "class": explanation.target,
        "predicted": explanation.predicted,
        "label": explanation.label,
        "steps": explanation.steps,
        "probability": _rounded(explanation.probability),
        "trace": {
            "score": [_rounded(score, 4) for score in explanation.score],
            "loss": [_rounded(loss, 5) for loss in explanation.loss],
        },
    }
    entry |= {
        mask: {"step": explanation.mask_steps[mask], **rounded(scores)}
        for mask, scores in explanation.scores.items()
    }
    if explanation.label_scores is not None:
        entry[FOR_LABEL] = {
            mask: rounded(scores) for mask, scores in explanation.label_scores.items()
        }
    if class_names:
        entry["class_name"] = class_names[explanation.target]
        entry["predicted_name"] = class_names[explanation.predicted]
        if explanation.label is not None:
            entry["label_name"] = class_names[explanation.label]
    return entry


def rounded(scores: Mapping[str, Value]) -> Record:
    """Scores as JSON takes them, rounded to what is meaningful; None where one is unknown."""
    return {
        name: [_rounded(one) for one in value] if isinstance(value, list) else _rounded(value)
        for name, value in scores.items()
    }


def column(values: Sequence[Any]) -> Float64[np.ndarray, "n ..."]:
    """A score's values in many records, [n], or [n,c] of one that is pooled; NaN where unknown."""
    length = next((len(value) for value in values if np.ndim(value)), None)
    unknown = None if length is None else [None] * length
    return np.array([unknown if value is None else value for value in values], np.float64)


def _rounded(value: float | np.floating, digits: int = DIGITS) -> float | None:
    """JSON knows neither NaN, for what is unknown, nor infinities."""
    return round(float(value), digits) if math.isfinite(value) else None
