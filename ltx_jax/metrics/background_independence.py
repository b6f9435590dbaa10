"""Whether a mask stays off what the classifier does not use (after FunnyBirds, Hesse,
Schaub-Meyer & Roth, ICCV 2023)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score

# A class depends on a part where its probability falls by as much without it.
_NOTICED = 0.05


def background_independence(case: Case) -> Float[Array, "n k"]:
    """Percent of the sum of the relevance above 0 over all parts of the image that lies in those
    without which the class's probability falls by 0.05 or more, and not in the others alone; NaN
    where it does so without each part, or there is none of it in any."""
    relevance = case.relevance.clip(0)
    parts, logits = case.parts
    probability = case.explainee.probability(logits[:, None], case.classes[..., None])
    drops = case.probability(case.logits)[..., None] - probability
    used = (parts[:, None] & (drops >= _NOTICED)[..., None, None]).any(2)
    whole = jnp.where(parts.any(1), relevance, 0.0).sum((1, 2))[:, None]
    share = 100.0 * jnp.where(used, relevance[:, None], 0.0).sum((2, 3)) / jnp.maximum(whole, 1e-9)
    idle = (parts.any((2, 3))[:, None] & (drops < _NOTICED)).any(-1)
    return jnp.where(idle & (whole > 0), share, jnp.nan)


BACKGROUND_INDEPENDENCE = Score(
    "background_independence",
    "background independence",
    "higher",
    0,
    100,
    "share of the mask on a scene's parts that lies on those which the class depends on",
    "after FunnyBirds, Hesse, Schaub-Meyer & Roth, ICCV 2023",
    background_independence,
    usual=False,
    needs_interventions=True,
)
