"""Symmetric relevance gain where removed pixels are imputed (ROAD, Rong et al., ICML 2022).

What is removed is no longer shown by the outline of a fill, which tells of the class as well.
"""

from __future__ import annotations

from jax import Array
from jaxtyping import Bool, Float

from ltx_jax.masks.covering import fixed_noise
from ltx_jax.masks.imputation import imputed
from ltx_jax.metrics.case import Case
from ltx_jax.metrics.score import Score
from ltx_jax.metrics.symmetric_relevance import gain

# Of the noise: the default of the authors' NoisyLinearImputer (tleemann/road_evaluation).
_DEVIATION = 0.01


def noisily_imputed(
    images: Float[Array, "*n H W C"], seen: Bool[Array, "*n H W"]
) -> Float[Array, "*n H W C"]:
    """Imputed images with N(0, 0.01²) on them, the same for every image."""
    return imputed(images, seen) + _DEVIATION * fixed_noise(images)


def imputed_gain(case: Case) -> Float[Array, "n k"]:
    """NEG − POS where noisy linear imputation stands for the pixels that are gone."""
    return gain(case, fill=noisily_imputed)


ROAD = Score(
    "srg_road",
    "SRG ROAD",
    "higher",
    -90,
    90,
    "NEG less POS where the pixels that are gone are imputed of their neighbours",
    "remove and debias, Rong et al., ICML 2022",
    imputed_gain,
    usual=False,
)
