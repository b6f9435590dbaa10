"""LTX of ResNet-101 on ImageNet: the paper's settings, λ = 50; else as vit_base.py.

The original takes torchvision's weights: give them with --config.explainee.weights (a .pth goes
through tools/convert_weights.py); without, timm's default ones come from the hub.

python -m ltx_jax.main --config=configs/resnet101.py --config.images=PATH \
    --config.explainer.checkpoint=pltx_resnet101.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.explainee.name = "resnet101"
    return config
