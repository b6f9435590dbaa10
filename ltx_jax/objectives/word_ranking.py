"""Features and words: the cosine margin ranking loss of LaViSE.

An explainer maps features to a point among word vectors; the loss asks that the words of what is
there lie nearer to it, by angle, than all others do.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int


def word_ranking_loss(
    cosines: Float[Array, "n words"],
    labels: Bool[Array, "n words"],
    margin: float = 1.0,
    subset: Int[Array | np.ndarray, " k"] | None = None,
) -> Float[Array, ""]:
    """Mean over samples of Σ_j (1 − y_j)·max(0, margin − s̄ + c_j): c_j is the cosine with word j,
    y_j whether it is the sample's, s̄ the mean cosine of those that are.

    A sample without a word of its own has no loss. Of a subset it is left out of the mean, in which
    it counts otherwise, as in the original; of no sample at all the loss is 0.

    Args:
      cosines: of each sample's point with each word, in [-1,1].
      labels: which words are each sample's.
      margin: by how much its own words should be nearer, ≥ 0.
      subset: indices of the words that are supervised, each once; the others play no part. All
        where it is None.

    Source: LaViSE, Yang et al., CVPR 2022 (arXiv 2204.04601); the original's `CSMRLoss`. Its COCO
    training gave it labels with an axis too many, and had a loss of 0 whatever it drew.
    """
    if subset is not None:
        cosines, labels = cosines[:, subset], labels[:, subset]
    count = labels.sum(1, dtype=cosines.dtype)
    own = jnp.where(labels, cosines, 0).sum(1) / jnp.maximum(count, 1)
    lacking = jnp.where(labels, 0, jnp.maximum(margin - own[:, None] + cosines, 0)).sum(1)
    there = count > 0
    samples = len(cosines) if subset is None else there.sum(dtype=cosines.dtype)
    return jnp.where(there, lacking, 0).sum() / jnp.maximum(samples, 1)
