"""ltx_jax: what did the classifier look at? Learned visual explanations in JAX."""

__version__ = "0.4.0.dev0"  # before the imports: a run's summary tells it

from ltx_jax.api import attribute, evaluate, explain, explain_filters, pretrain
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading.checkpoints import save_explainer
from ltx_jax.loading.explainees import explainee_of, load_explainee
from ltx_jax.loading.explainers import load_explainer, load_mask
from ltx_jax.models.explainee import Explainee
from ltx_jax.reporting.results import Evaluation, Explanations, Stored, load
from ltx_jax.runtime import prepare
from ltx_jax.settings.sections import LTX, Objective, Settings

__all__ = [
    "LTX",
    "Evaluation",
    "Explainee",
    "Explainer",
    "Explanations",
    "InputError",
    "Objective",
    "Settings",
    "Stored",
    "__version__",
    "attribute",
    "evaluate",
    "explain",
    "explain_filters",
    "explainee_of",
    "load",
    "load_explainee",
    "load_explainer",
    "load_mask",
    "prepare",
    "pretrain",
    "save_explainer",
]
