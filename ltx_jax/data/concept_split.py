"""Which concepts are named while something learns them, and which are left for it to discover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from ltx_jax.errors import InputError


class ConceptSplit(NamedTuple):
    """Class indices, ascending, each in one part at most.

    Attributes:
      supervised: whose images tell that they show them.
      unseen: whose images do not.
    """

    supervised: Int[np.ndarray, s]
    unseen: Int[np.ndarray, u]


def images_of_each(labels: Iterable[Sequence[int]], classes: int) -> Int[np.ndarray, {classes}]:
    """How many images have each class.

    Args:
      labels: of each image, below `classes`.
      classes: how many there are.
    """
    counts = Counter(label for several in labels for label in set(several))
    return np.array([counts[label] for label in range(classes)], np.int64)


def split_concepts(
    counts: Int[np.ndarray, classes], share: float, seed: int, least: int = 1
) -> ConceptSplit:
    """Draw the supervised concepts, without replacement.

    The original draws with replacement (`train_explainer.py`), and so supervises fewer than the
    share that it is given.

    Args:
      counts: images of each class, see `images_of_each`.
      share: of the concepts that are supervised, in (0,1]; rounded down to a number of them, as in
        the original, but one at least.
      seed: of the drawing, 0 or more: it and which classes are frequent enough decide it alone.
      least: images that a class needs, or else it is in neither part.

    Raises:
      InputError: for a share outside its range, or where no class is frequent enough.
    """
    if not 0 < share <= 1:
        raise InputError(f"the supervised share of concepts is {share}: expected above 0, up to 1")
    there = np.flatnonzero(counts >= least)
    if not there.size:
        most = int(counts.max(initial=0))
        raise InputError(
            f"no concept is in {least} images, and the most frequent in {most}: set the threshold "
            "lower, or give more images"
        )
    # By a hair more, so that 0.29 of 100 is 29, though its product in floating point is below.
    wanted = max(int(share * there.size + 1e-9), 1)
    drawn = np.random.default_rng(seed).permutation(there)
    return ConceptSplit(np.sort(drawn[:wanted]), np.sort(drawn[wanted:]))
