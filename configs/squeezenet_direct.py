"""Masks of SqueezeNet 1.1 on ImageNet photographs, without an explainer, on a laptop.

Needs torchvision's weights (download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth through
tools/convert_weights.py).

python -m ltx_jax.main --config=configs/squeezenet_direct.py --config.images=PHOTOGRAPHS \
    --config.explainee.weights=squeezenet1_1.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults()
    config.explainee.name = "squeezenet1_1"
    # A CNN's gradients are speckled: its masks gain from being smooth.
    config.objective.terms.total_variation = 20.0
    config.finetune.keep = 1.0
    return config
