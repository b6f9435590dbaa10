"""The demo: a small ViT that knows ten textured shapes, explained on 32 scenes it has never seen.

Needs nothing: the network is bundled (made by tools/make_demo_assets.py) and the scenes are drawn
on the spot. Prints a table of our masks and integrated gradients, with the six scores, the
symmetric relevance gain (SRG), the overlap (IoU) with the true object and the share of tied pixels.
Every fourth scene is explained for its two classes, the others for the predicted one.
Takes: half a minute on two CPU cores, compilation included.

python -m ltx_jax.main --config=configs/demo.py
"""

from pathlib import Path

from ml_collections import ConfigDict

import ltx_jax
from ltx_jax.settings.configuration import defaults

ASSETS = Path(ltx_jax.__file__).parent / "assets"


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults()
    config.images = "scenes"
    config.limit = 32
    config.label_rows = "::4"  # both objects of every fourth scene
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
    # Masks that show little: the object, and not also what would make the class surer.
    config.objective.mask_weight = 60.0
    config.objective.terms.total_variation = 12.0
    config.finetune.keep = 0.4
    # Its classifier finds an object wherever it lies, so that no grid need show in its masks.
    config.objective.shift = 1.0
    config.rivals = ("integrated_gradients",)
    return config
