"""ltx_jax: what did the classifier look at? Learned visual explanations in JAX."""

from ltx_jax.errors import InputError

__version__ = "0.1.0"

__all__ = ["InputError", "__version__"]
