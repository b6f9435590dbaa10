"""How well a classifier of several classes an image does."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Real

from ltx_jax.metrics.average_precision import average_precision


def answer_scores(
    logits: Real[np.ndarray, "n classes"], labels: Bool[np.ndarray, "n classes"], single: bool
) -> dict[str, float]:
    """How often a classifier is right, in percent: `accuracy` where one class is the answer, else
    `multi_label_scores` of the classes that it holds to be there."""
    if single:
        return {"accuracy": float(100 * (logits.argmax(-1) == labels.argmax(-1)).mean())}
    return multi_label_scores(logits, labels, threshold=0.0)


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
    there = labels.any(0)
    # Whatever logits are, their ranks lie in [0,1], and equal ones stay equal.
    ranks = [np.unique(column, return_inverse=True)[1] / len(logits) for column in logits.T[there]]
    precisions = average_precision(
        jnp.asarray(np.reshape(ranks, (-1, len(logits))), jnp.float32),
        jnp.asarray(labels.T[there]),
        jnp.ones((there.sum(), len(logits)), bool),
    )
    scores = {
        "accuracy": (held == labels).mean(),
        "precision": right / max(held.sum(), 1),
        "recall": right / max(labels.sum(), 1),
        "f1": 2 * right / max(held.sum() + labels.sum(), 1),
        "exact_match": (held == labels).all(1).mean(),
        "mean_average_precision": np.mean(precisions) if there.any() else 0.0,
    }
    return {name: float(100 * value) for name, value in scores.items()}
