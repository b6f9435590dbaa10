"""The original's segmentation test on ImageNet-Segmentation: pLTX (stage A), LTX (B) and rivals.

Does what `seg_stage_a.py` and `seg_stage_b.py` do with `--dataset-type imagenet`: ViT-Base/16, the
predicted class, the step selected by POS, in one run; stage A is the row `pltx` of its table, stage
B is `selected`. Published beside it: 61.95 mIoU of transformer attribution.

Needs gtsegs_ijcv.mat (ltx_jax/data/README.md; `python tools/check_data.py imagenet_segmentation
PATH` checks it), pip install -e '.[segmentation]', and an explainer: the published one, converted
by tools/convert_ltx_checkpoint.py (and --config.finetune.resume=True, as the original), or one of
your own by configs/vit_base.py with --config.task=pretrain. On paper (tools/plan_run.py) LTX takes
4 minutes for the 4,276 images on an H200 in bfloat16 at half of its speed.

python -m ltx_jax.main --config=configs/segmentation_imagenet.py \
    --config.images=gtsegs_ijcv.mat --config.explainer.checkpoint=pltx_vit_base.safetensors

ViT-Small: --config.explainee.name=vit_small_patch16_224.augreg_in21k_ft_in1k, its explainer, and
--config.objective.mask_weight=30. Stage A alone: --config.finetune.steps=0. Masks without an
explainer, of any network: --config.dataset and --config.scores with configs/direct.py.
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.dataset = "imagenet_segmentation"
    config.explainee.name = "vit_base_patch16_224.augreg_in21k_ft_in1k"
    config.scores = ("pixel_accuracy", "mean_iou", "average_precision", "f1", "f1_by_rows")
    config.rivals = ("grad_cam", "integrated_gradients")
    return config
