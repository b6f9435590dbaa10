"""LTX of ResNet-50 on ImageNet, with the settings that the paper uses for ResNet-101.

Give torchvision's weights with --config.explainee.weights (a .pth goes
through tools/convert_weights.py); without, timm's default ones come from the hub.

python -m ltx_jax.main --config=configs/resnet50.py --config.images=PATH \
    --config.explainer.checkpoint=pltx_resnet50.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.explainee.name = "resnet50"
    return config
