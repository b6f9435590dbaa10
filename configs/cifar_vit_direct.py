"""Masks of a small ViT on CIFAR-10 without an explainer.

Needs: weights of the ViT and an .npz with the images, as configs/cifar_vit.py.
Takes: half a minute for 100 images on two CPU cores, compilation included.

python -m ltx_jax.main --config=configs/cifar_vit_direct.py --config.images=cifar10.npz \
    --config.explainee.weights=vit.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults()
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
    config.finetune.keep = 1.0
    return config
