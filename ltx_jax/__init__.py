"""ltx_jax: what did the classifier look at? Learned visual explanations in JAX."""

from ltx_jax.api import Explanations, explain
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading import load_explainee, load_explainer, save_explainer
from ltx_jax.objectives.ltx import Objective
from ltx_jax.runtime import prepare

__version__ = "0.1.0"

__all__ = [
    "Explainee",
    "Explainer",
    "Explanations",
    "InputError",
    "Objective",
    "__version__",
    "explain",
    "load_explainee",
    "load_explainer",
    "prepare",
    "save_explainer",
]
