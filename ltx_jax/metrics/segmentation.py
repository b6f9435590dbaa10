"""How well a mask's foreground covers the true object: the original's segmentation test.

Pixels that are void count neither way. Pixel accuracy and mIoU are pooled: each image gives the
numbers of its pixels, and the score is of all images' pixels together.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.masks.spanning import spanning
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score


def foreground(masks: Float[Array, "n H W"]) -> Bool[Array, "n H W"]:
    """Where a mask exceeds its own mean; nowhere in a constant one."""
    masks = spanning(masks)
    return masks > masks.mean((1, 2), keepdims=True)


def counted_pixels(case: Case) -> Bool[Array, "n H W"]:
    """Pixels that are not void."""
    assert case.truth is not None
    return jnp.ones_like(case.truth) if case.counted is None else case.counted


def confusion(case: Case) -> Float[Array, "n 4"]:
    """Numbers of pixels: of the object and marked; outside and marked; of the object and not
    marked; neither. NaN where no truth is known."""
    assert case.truth is not None and case.known_truth is not None
    counted, marked, truth = counted_pixels(case), foreground(case.masks), case.truth
    kinds = (marked & truth, marked & ~truth, ~marked & truth, ~marked & ~truth)
    numbers = jnp.stack([(kind & counted).sum((1, 2)) for kind in kinds], -1).astype(jnp.float32)
    return jnp.where(case.known_truth[:, None], numbers, jnp.nan)


def intersection_over_union(case: Case) -> Float[Array, "n 1"]:
    """Percent; 0 where both are empty, NaN where no truth is known."""
    both, over, missed, _ = jnp.split(confusion(case), 4, -1)
    return 100.0 * both / jnp.maximum(both + over + missed, 1.0)


def f1(case: Case) -> Float[Array, "n 1"]:
    """Percent: harmonic mean of precision and recall of an image's foreground; 0 where both are
    empty, NaN where no truth is known."""
    both, over, missed, _ = jnp.split(confusion(case), 4, -1)
    return 100.0 * 2 * both / jnp.maximum(2 * both + over + missed, 1.0)


def f1_by_rows(case: Case) -> Float[Array, "n 1"]:
    """Percent: what the original calls F1. An image's pixels in reading order, without the void
    ones, are cut into as many equal runs as the image has rows; the mean of the F1 of each, 0 for a
    run in which nothing is marked or true. Without void pixels the runs are the rows."""
    assert case.truth is not None and case.known_truth is not None
    n, rows = case.truth.shape[:2]
    counted, marked, truth = (
        x.reshape(n, -1) for x in (counted_pixels(case), foreground(case.masks), case.truth)
    )
    place = jnp.cumsum(counted, -1) - 1
    run = jnp.where(counted, place * rows // jnp.maximum(counted.sum(-1, keepdims=True), 1), rows)
    pixels = jnp.stack([marked & truth, marked, truth], -1).astype(jnp.float32)
    sums = jax.vmap(lambda run, pixels: jax.ops.segment_sum(pixels, run, rows + 1))(run, pixels)
    both, ours, theirs = jnp.moveaxis(sums[:, :rows], -1, 0)
    share = 100.0 * (2 * both / jnp.maximum(ours + theirs, 1.0)).mean(-1)
    return jnp.where(case.known_truth, share, jnp.nan)[:, None]


def right_and_all(case: Case) -> Float[Array, "n 1 2"]:
    """Numbers of pixels: rightly marked or left, and of all."""
    numbers = confusion(case)
    return jnp.stack([numbers[:, 0] + numbers[:, 3], numbers.sum(-1)], -1)[:, None]


def pooled_accuracy(numbers: Float[np.ndarray, "n 2"]) -> float:
    """Percent of all images' pixels that are rightly marked or left; see `right_and_all`."""
    right, every = numbers.sum(0)
    return float(100.0 * right / every)


def pooled_mean_iou(numbers: Float[np.ndarray, "n 4"]) -> float:
    """Percent: the mean of the IoU of foreground and background over all images' pixels; of the one
    alone where there is nothing of the other. See `confusion`."""
    both, over, missed, neither = numbers.sum(0)
    pairs = ((both, both + over + missed), (neither, neither + over + missed))
    return float(np.mean([100.0 * inner / union for inner, union in pairs if union]))


_SOURCE = "the original's segmentation test"
IOU = Score(
    "iou",
    "IoU",
    "higher",
    0,
    100,
    "overlap of the mask's foreground, where it exceeds its mean, with the true object",
    _SOURCE,
    intersection_over_union,
    7,
    needs_truth=True,
)
F1 = Score(
    "f1",
    "F1",
    "higher",
    0,
    100,
    "harmonic mean of precision and recall of the mask's foreground",
    "Dice 1945; the original's segmentation test, there over rows",
    f1,
    7,
    usual=False,
    needs_truth=True,
)
F1_BY_ROWS = Score(
    "f1_by_rows",
    "F1 by rows",
    "higher",
    0,
    100,
    "the mean of the F1 of each row of the image, 0 for rows without any of the object",
    _SOURCE,
    f1_by_rows,
    7,
    usual=False,
    needs_truth=True,
)
PIXEL_ACCURACY = Score(
    "pixel_accuracy",
    "pixel accuracy",
    "higher",
    0,
    100,
    "share of all images' pixels that the mask's foreground tells rightly",
    _SOURCE,
    right_and_all,
    7,
    pooled_accuracy,
    usual=False,
    needs_truth=True,
)
MEAN_IOU = Score(
    "mean_iou",
    "mIoU",
    "higher",
    0,
    100,
    "mean overlap, over all images' pixels, of foreground with object and of background with the "
    "rest",
    _SOURCE,
    lambda case: confusion(case)[:, None],
    7,
    pooled_mean_iou,
    usual=False,
    needs_truth=True,
)
