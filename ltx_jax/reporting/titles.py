"""What methods are called by people."""

from __future__ import annotations

from ltx_jax.attribution import RIVALS

_TITLES = {
    "final": "mask of its own, last step",
    "pltx": "pLTX (before finetuning)",
    "selected": "LTX, selected step",
    "last": "LTX, last step",
    "by_loss": "LTX, lowest loss",
    "original": "LTX, the original's",
    "explainer": "the explainer",
    "zeros": "0 everywhere",
    "half": "0.5 everywhere",
    "ones": "1 everywhere",
    "perfect": "the objects themselves",
    **{name: rival.title for name, rival in RIVALS.items()},
}


def title_of(method: str) -> str:
    """A method's title; its name where it has none."""
    return _TITLES.get(method, method)
