"""The demo: a small ViT that knows ten textured shapes, explained on 32 scenes it has never seen.

Needs nothing: the networks are bundled (made by tools/make_demo_assets.py) and the scenes are drawn
on the spot. Prints a table of LTX, pLTX (before finetuning) and integrated gradients, with the six
scores and the overlap (IoU) with the true object. Some scenes are explained for two classes.
Takes: about two minutes on two CPU cores.

python -m ltx_jax.main --config=configs/demo.py
"""

from pathlib import Path

from ml_collections import ConfigDict

import ltx_jax
from ltx_jax.defaults import defaults

ASSETS = Path(ltx_jax.__file__).parent / "assets"


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults()
    config.images = "scenes"
    config.limit = 32
    config.explainee.name = "vit"
    config.explainee.weights = str(ASSETS / "demo_explainee.safetensors")
    config.explainee.sizes = ConfigDict(
        {
            "image_size": 96,
            "patch_size": 8,
            "width": 96,
            "depth": 4,
            "num_heads": 4,
            "num_classes": 10,
        }
    )
    config.explainer.checkpoint = str(ASSETS / "demo_explainer.safetensors")
    config.objective.target = "label"
    config.objective.mask_weight = 6.0
    config.finetune.learning_rate = 1e-3
    config.finetune.stop_below = 0.0  # never early: the table compares full finetunings
    config.rivals = ("integrated_gradients",)
    return config
