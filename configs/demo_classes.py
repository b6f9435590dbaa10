"""Which pixels belong to which of a scene's classes: a mask for each, in one pass, then refined.

Needs nothing: the CNN, which tells which of ten textured shapes a scene has, and the explainer with
a mask for every class are bundled (made by tools/make_class_demo.py); scenes are drawn on the spot.
The page shows each scene with the masks of its classes, a colour each, as they are drawn in one
pass (`pltx`), refined on the scene (`selected`), and Grad-CAM's.
Takes: a minute and a half on two CPU cores, compilation included.

python -m ltx_jax.main --config=configs/demo_classes.py

In one pass alone: --config.finetune.steps=0
"""

from pathlib import Path

from ml_collections import ConfigDict

import ltx_jax
from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import NN_EXPLAINER

ASSETS = Path(ltx_jax.__file__).parent / "assets"


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(NN_EXPLAINER)
    config.images = "scenes"
    config.objects = (2, 4)
    config.limit = 8
    config.explainee.name = "cifar_resnet20"
    config.explainee.weights = str(ASSETS / "demo_classes_explainee.safetensors")
    config.explainee.sizes = ConfigDict({"image_size": 96, "depth": 14, "num_classes": 10})
    config.explainer.checkpoint = str(ASSETS / "demo_classes_explainer.safetensors")
    config.explainer.name = None
    # It was trained with 6; trained with 8 it is no better, and used with 8 it is.
    config.explainer.edge_radius = 8
    config.explainer.head = None
    config.explainer.sizes = ConfigDict({})
    # What is refined is the mask itself, so that its edges stay and what is beyond gets an order.
    config.explainer.trained = "mask"
    config.finetune.optimize = "srg_probability"
    config.finetune.steps = 20
    config.finetune.learning_rate = 0.1
    # By the logit, as the classifier is sure of its classes anyway: the more evidence stays the
    # better, and the mask term has to hold its own against that.
    config.objective.logits_only = True
    config.objective.mask_weight = 90.0
    config.objective.terms.budget = 2.0
    config.objective.terms.total_variation = 3.0
    config.objective.fills = ("black", "mean")
    config.rivals = ("grad_cam",)
    config.scores = (*config.scores, "pixel_auc")
    return config
