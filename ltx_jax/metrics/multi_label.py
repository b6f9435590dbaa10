"""How well a classifier of several classes an image does."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Real


def multi_label_scores(
    logits: Real[np.ndarray, "n classes"], labels: Bool[np.ndarray, "n classes"], threshold: float
) -> dict[str, float]:
    """Percent each; a share of nothing is 0.

    `accuracy` (of all images' classes, held or not), `precision`, `recall` and `f1` of those that
    are held, `exact_match` of whole images (NN-Explainer's MultiLabelMetrics); and
    `mean_average_precision`, over the classes that any image has.

    Args:
      logits: of the images.
      labels: their classes.
      threshold: the logit from which on a class is held to be there.
    """
    held = logits >= threshold
    right = (held & labels).sum()
    precisions = [
        average_precision(logits[:, k], labels[:, k])
        for k in range(labels.shape[1])
        if labels[:, k].any()
    ]
    scores = {
        "accuracy": (held == labels).mean(),
        "precision": right / max(held.sum(), 1),
        "recall": right / max(labels.sum(), 1),
        "f1": 2 * right / max(held.sum() + labels.sum(), 1),
        "exact_match": (held == labels).all(1).mean(),
        "mean_average_precision": np.mean(precisions) if precisions else 0.0,
    }
    return {name: float(100 * value) for name, value in scores.items()}


def average_precision(values: Real[np.ndarray, " n"], truth: Bool[np.ndarray, " n"]) -> float:
    """The mean, over those that are true, of the precision of all that are ranked as high, equal
    values together; in [0,1]. Some must be true."""
    order = np.argsort(-values, kind="stable")
    last = np.append(values[order][1:] != values[order][:-1], True)  # of those with equal values
    found: Float[np.ndarray, " n"] = np.cumsum(truth[order])[last].astype(np.float64)
    precision = found / (np.flatnonzero(last) + 1)
    return float((np.diff(found, prepend=0.0) * precision).sum() / found[-1])
