"""The original's segmentation test on COCO val2017: pLTX (stage A), LTX (B) and rivals.

As segmentation_imagenet.py, which says what else it needs and how to take ViT-Small, with the
original's `--dataset-type coco`. Needs annotations/ and val2017/ in one folder
(ltx_jax/data/README.md; `python tools/check_data.py coco PATH` checks it). All instances of an
image are its object. The original leaves out images without any; here they are explained, and have
no segmentation scores. On paper the 5,000 images take 5 minutes on an H200 in bfloat16 at half of
its speed.

python -m ltx_jax.main --config=configs/segmentation_coco.py \
    --config.images=COCO --config.explainer.checkpoint=pltx_vit_base.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.dataset = "coco"
    config.explainee.name = "vit_base_patch16_224.augreg_in21k_ft_in1k"
    config.scores = ("pixel_accuracy", "mean_iou", "average_precision", "f1", "f1_by_rows")
    config.rivals = ("grad_cam", "integrated_gradients")
    return config
