"""LTX of ViT-Small/16 at 224 on ImageNet: the paper's settings, λ = 30; else as vit_base.py.

python -m ltx_jax.main --config=configs/vit_small.py --config.images=PATH \
    --config.explainer.checkpoint=pltx_vit_small.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.explainee.name = "vit_small_patch16_224.augreg_in21k_ft_in1k"
    config.objective.mask_weight = 30.0
    return config
