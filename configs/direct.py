"""Masks of any network, without an explainer, by our recipe.

Weights come from the Hugging Face hub (pip install -e '.[hub]'), or from a file given with
--config.explainee.weights; the networks there are stand in the README.

python -m ltx_jax.main --config=configs/direct.py --config.images=PHOTOGRAPHS \
    --config.explainee.name=resnet50
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults


def get_config() -> ConfigDict:
    """The settings."""
    return defaults()
