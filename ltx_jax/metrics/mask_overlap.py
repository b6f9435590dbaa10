"""How well a mask's values, not its order, match the true object: NN-Explainer's scores.

At fixed thresholds, where other scores here take the mask's own mean; and of the values as they
are. Pixels that are void do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.segmentation import counted_pixels

THRESHOLDS = tuple(np.arange(0.1, 1, 0.1))
Pixels = Float[Array, "n H W"]


def f1_at(case: Case, thresholds: Sequence[float]) -> Float[Array, "n t"]:
    """Percent: harmonic mean of precision and recall of the pixels above each threshold; 0 where
    there are neither these nor an object, NaN where no truth is known."""
    return _at(case, thresholds, lambda both, ours, theirs: (2 * both, ours + theirs))


def iou_at(case: Case, thresholds: Sequence[float]) -> Float[Array, "n t"]:
    """Percent: intersection over union of the object and the pixels above each threshold; 0 and NaN
    as for `f1_at`."""
    return _at(case, thresholds, lambda both, ours, theirs: (both, ours + theirs - both))


def _at(
    case: Case, thresholds: Sequence[float], parts: Callable[..., tuple[Array, Array]]
) -> Float[Array, "n t"]:
    truth, counted = _truth(case)
    found = []
    for threshold in thresholds:
        marked = (case.masks > rounded_down(threshold)).astype(truth.dtype) * counted
        found.append(_share(*parts(_sum(marked * truth), _sum(marked), _sum(truth))))
    return _known(case, jnp.stack(found, -1))


def rounded_down(threshold: float) -> np.float32:
    """What is above this is above the number itself, not above the nearest float32: masks of 8 or
    16 bits have values such as 0.2."""
    nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.nextafter(nearest, np.float32(0))


def soft_f1(case: Case) -> Float[Array, "n 1"]:
    """Percent: F1 where each pixel is marked by as much as its value."""
    truth, counted = _truth(case)
    both, ours = _sum(case.masks * truth), _sum(case.masks * counted)
    return _known(case, _share(2 * both, ours + _sum(truth)))


def soft_iou(case: Case) -> Float[Array, "n 1"]:
    """Percent: Σmin / Σmax of mask and truth, the continuous IoU."""
    truth, counted = _truth(case)
    masks = case.masks * counted
    return _known(case, _share(_sum(jnp.minimum(masks, truth)), _sum(jnp.maximum(masks, truth))))


def overlap(case: Case) -> Float[Array, "n 1"]:
    """Percent: 1 less the mean absolute difference of mask and truth. The soft accuracy, m·s +
    (1−m)·(1−s), is the same where the truth is 0 or 1."""
    truth, counted = _truth(case)
    apart = _sum(jnp.abs(truth - case.masks * counted))
    return _known(case, 100.0 - _share(apart, _sum(counted)))


def object_coverage(case: Case) -> Float[Array, "n 1"]:
    """Percent of the object that is seen; 0 where there is none."""
    truth, _ = _truth(case)
    return _known(case, _share(_sum(case.masks * truth), _sum(truth)))


def background_coverage(case: Case) -> Float[Array, "n 1"]:
    """Percent of all but the object that is seen; 0 where the object is everything."""
    truth, counted = _truth(case)
    outside = counted - truth
    return _known(case, _share(_sum(case.masks * outside), _sum(outside)))


def similarity_ratio(case: Case) -> Float[Array, "n 1"]:
    """Percent: Σms / (Σms + Σ(m−s)²), m the mask and s the truth."""
    truth, counted = _truth(case)
    both = _sum(case.masks * truth)
    return _known(case, _share(both, both + _sum((case.masks * counted - truth) ** 2)))


def _truth(case: Case) -> tuple[Pixels, Pixels]:
    """The object's pixels and those that count, as 0 and 1."""
    assert case.truth is not None
    counted = counted_pixels(case)
    return (case.truth & counted).astype(case.masks.dtype), counted.astype(case.masks.dtype)


def _sum(pixels: Pixels) -> Float[Array, " n"]:
    return pixels.sum((1, 2))


def _share(part: Float[Array, " n"], whole: Float[Array, " n"]) -> Float[Array, " n"]:
    """Percent; 0 of nothing."""
    return 100.0 * jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), 0.0)


def _known(case: Case, values: Array) -> Float[Array, "n k"]:
    """Values [n] or [n,k], NaN where no truth is known."""
    assert case.known_truth is not None
    return jnp.where(case.known_truth[:, None], values.reshape(len(values), -1), jnp.nan)


_SOURCE = "NN-Explainer, Stalder et al., NeurIPS 2022"
# Of truth 0 or 1 alone: no usual scores.
_of_truth = partial(
    Score, low=0, high=100, source=_SOURCE, column=8, usual=False, needs_truth=True, better="higher"
)


def _f1(percent: int) -> Score:
    return _of_truth(
        f"f1_{percent}",
        f"F1 at .{percent}",
        meaning=f"harmonic mean of precision and recall of the pixels above .{percent}",
        values=lambda case: f1_at(case, (percent / 100,)),
    )


F1_25, F1_50, F1_75 = map(_f1, (25, 50, 75))
F1_MEAN = _of_truth(
    "f1_mean",
    "F1, mean",
    meaning="mean of the F1 at .1, .2 … .9",
    values=lambda case: f1_at(case, THRESHOLDS).mean(-1, keepdims=True),
)
SOFT_F1 = _of_truth(
    "soft_f1", "soft F1", meaning="F1 of a mask's values as they are", values=soft_f1
)
IOU_MEAN = _of_truth(
    "iou_mean",
    "IoU, mean",
    meaning="mean of the intersection over union at .1, .2 … .9",
    values=lambda case: iou_at(case, THRESHOLDS).mean(-1, keepdims=True),
)
SOFT_IOU = _of_truth(
    "soft_iou",
    "soft IoU",
    meaning="sum of the lesser of mask and truth over sum of the greater (continuous IoU)",
    values=soft_iou,
)
OVERLAP = _of_truth(
    "overlap",
    "overlap",
    meaning="1 less the mean difference of mask and truth (soft accuracy)",
    values=overlap,
)
OBJECT_COVERAGE = _of_truth(
    "object_coverage",
    "object coverage",
    meaning="share of the object that is seen",
    values=object_coverage,
)
BACKGROUND_COVERAGE = _of_truth(
    "background_coverage",
    "background coverage",
    better="lower",
    meaning="share of all but the object that is seen",
    values=background_coverage,
)
SIMILARITY_RATIO = _of_truth(
    "similarity_ratio",
    "similarity ratio",
    meaning="what mask and truth share, beside that and their squared differences",
    values=similarity_ratio,
)
