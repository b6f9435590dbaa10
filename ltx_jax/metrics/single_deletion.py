"""Whether a mask ranks the parts of an image as the classifier does (after FunnyBirds, Hesse,
Schaub-Meyer & Roth, ICCV 2023, who delete the parts of a bird)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.models.links import of_class


def single_deletion(case: Case) -> Float[Array, "n k"]:
    """Spearman correlation over the parts of an image between the drop of the class's logit as the
    image is made again without the part, and the sum of the relevance where that changes it; NaN
    where fewer than two parts can be seen, or one side is constant."""
    parts, logits = case.parts
    drops = case.logits[:, None] - logits
    drops = of_class(drops[:, None], case.classes[..., None])
    relevance = jnp.where(parts, case.relevance[:, None], 0).sum((2, 3))[:, None]
    return spearman(drops, relevance, parts.any((2, 3))[:, None])


def spearman(
    a: Float[Array, "*#n p"], b: Float[Array, "*#n p"], counted: Bool[Array, "*#n p"]
) -> Float[Array, "*n"]:
    """The correlation of ranks among what is counted; ties share the mean of theirs, and NaN stands
    where one side is constant."""
    shape = jnp.broadcast_shapes(a.shape, b.shape, counted.shape)
    weights = jnp.broadcast_to(counted, shape).astype(jnp.float32)
    a, b = (_centred_ranks(jnp.broadcast_to(values, shape), weights) for values in (a, b))
    spread = (a * a).sum(-1) * (b * b).sum(-1)
    return jnp.where(spread > 0, (a * b).sum(-1) / jnp.sqrt(spread), jnp.nan)


def _centred_ranks(values: Float[Array, "*n p"], weights: Float[Array, "*n p"]) -> Array:
    """Twice the ranks less their mean: how many are below less how many are above; whole numbers,
    so that a constant's are exactly 0."""
    # Sorted before they are compared, though it needs no order: a compiler may compute a value
    # anew for each side of a comparison, with another last digit, but does not sort twice.
    numbers = jnp.broadcast_to(jnp.arange(values.shape[-1], dtype=jnp.int32), values.shape)
    values, weights, numbers = jax.lax.sort((values, weights, numbers), num_keys=1)
    difference = jnp.sign(values[..., :, None] - values[..., None, :])
    ranks = (difference * weights[..., None, :]).sum(-1) * weights
    return jax.lax.sort((numbers, ranks), num_keys=1)[1]


SINGLE_DELETION = Score(
    "single_deletion",
    "single deletion",
    "higher",
    -1,
    1,
    "rank correlation of the mask in each object of a scene, and in its clutter, with what the "
    "class loses without it",
    "after FunnyBirds, Hesse, Schaub-Meyer & Roth, ICCV 2023",
    single_deletion,
    usual=False,
    needs_interventions=True,
)
