"""The original's segmentation test on VOC 2012 val: pLTX (stage A), LTX (B) and rivals.

As segmentation_imagenet.py, which says what else it needs and how to take ViT-Small, with the
original's `--dataset-type voc`. Needs VOCdevkit/VOC2012 (ltx_jax/data/README.md;
`python tools/check_data.py voc PATH` checks it). Any object is one. The pixels around the objects,
255, are left out; the original takes them for objects. On paper the 1,449 images take a minute and
a half on an H200 in bfloat16 at half of its speed.

python -m ltx_jax.main --config=configs/segmentation_voc.py \
    --config.images=VOCdevkit --config.explainer.checkpoint=pltx_vit_base.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.dataset = "voc"
    config.explainee.name = "vit_base_patch16_224.augreg_in21k_ft_in1k"
    config.scores = ("pixel_accuracy", "mean_iou", "average_precision", "f1", "f1_by_rows")
    config.rivals = ("grad_cam", "integrated_gradients")
    return config
