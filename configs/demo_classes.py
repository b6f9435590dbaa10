"""The demo of classes: an explainer that draws a mask for every class of a scene in one pass, and
each of them refined on its scene.

Needs nothing: both networks are bundled (made by tools/make_class_demo.py) and the scenes, of two
to four objects each, are drawn on the spot. Prints a table of the masks as they are drawn (pltx),
as they are refined, and of Grad-CAM; the page shows each scene with a mask per class.
Takes: two minutes on two CPU cores, compilation included.

python -m ltx_jax.main --config=configs/demo_classes.py
"""

from pathlib import Path

from ml_collections import ConfigDict

import ltx_jax
from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX

ASSETS = Path(ltx_jax.__file__).parent / "assets"


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.images = "scenes"
    config.objects = (2, 4)
    config.limit = 32
    config.target = "labels"  # a row for each class that is there
    config.explainee.name = "vit"
    config.explainee.weights = str(ASSETS / "demo_classes_explainee.safetensors")
    config.explainee.link = "sigmoid"
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
    config.explainer.classes = 10
    config.explainer.checkpoint = str(ASSETS / "demo_classes_explainer.safetensors")
    config.objective.mask_weight = 10.0
    config.finetune.learning_rate = 3e-4
    config.finetune.steps = 20
    config.finetune.optimize = "neg"
    config.finetune.stop_above = 101.0
    config.scores = ("soft_iou", "soft_f1", "pixel_auc")
    config.rivals = ("grad_cam",)
    return config
