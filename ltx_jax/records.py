"""An explanation as one line of `results.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltx_jax.engine.explain import Explanation

Record = dict[str, Any]


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
        "probability": round(explanation.probability, 6),
        "trace": {
            "score": [None if np.isnan(s) else round(float(s), 4) for s in explanation.score],
            "loss": [round(float(loss), 5) for loss in explanation.loss],
        },
    }
    entry |= {mask: _rounded(scores) for mask, scores in explanation.scores.items()}
    if explanation.label_scores is not None:
        entry["for_label"] = {
            mask: _rounded(scores) for mask, scores in explanation.label_scores.items()
        }
    if class_names:
        entry["class_name"] = class_names[explanation.target]
        entry["predicted_name"] = class_names[explanation.predicted]
        if explanation.label is not None:
            entry["label_name"] = class_names[explanation.label]
    return entry


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {
        name: value if isinstance(value, int) else round(float(value), 6)
        for name, value in scores.items()
    }
