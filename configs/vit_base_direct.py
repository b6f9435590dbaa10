"""Masks of ViT-Base/16 without an explainer: the same images as configs/vit_base.py, by our recipe.

Weights come from the Hugging Face hub (pip install -e '.[hub]'), or from a file given with
--config.explainee.weights.

python -m ltx_jax.main --config=configs/vit_base_direct.py --config.images=PHOTOGRAPHS
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults()
    config.explainee.name = "vit_base_patch16_224.augreg_in21k_ft_in1k"
    return config
