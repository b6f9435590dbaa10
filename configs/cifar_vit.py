"""LTX of a small ViT on CIFAR-10: both stages on a laptop.

Reproduces the original PyTorch code, step by step, on 100 test images from the same pretrained
explainer: POS 10.45 (selected) and 12.65 (last step).
Needs: weights of the ViT (image 32, patch 4, width 64, depth 4, heads 4; input in [0,1] as it is)
and an .npz with the images.
Takes: 20 s for 100 images on two CPU cores, compilation included.

python -m ltx_jax.main --config=configs/cifar_vit.py --config.images=cifar10.npz \
    --config.explainee.weights=vit.safetensors --config.explainer.checkpoint=explainer.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.explainee.name = "vit"
    config.explainee.sizes = ConfigDict(
        {
            "image_size": 32,
            "patch_size": 4,
            "width": 64,
            "depth": 4,
            "num_heads": 4,
            "num_classes": 10,
            "mean": (0.0, 0.0, 0.0),
            "std": (1.0, 1.0, 1.0),
        }
    )
    config.objective.mask_weight = 15.0
    config.finetune.learning_rate = 1e-3
    config.pretrain.epochs = 8
    config.pretrain.learning_rate = 1e-3
    return config
