"""Masks of ResNet-101 without an explainer: the same images as configs/resnet101.py, by our recipe.

Weights come from the Hugging Face hub (pip install -e '.[hub]'), or from a file given with
--config.explainee.weights.

python -m ltx_jax.main --config=configs/resnet101_direct.py --config.images=PHOTOGRAPHS
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults()
    config.explainee.name = "resnet101"
    # A CNN's gradients are speckled: its masks gain from being smooth.
    config.objective.terms.total_variation = 20.0
    return config
