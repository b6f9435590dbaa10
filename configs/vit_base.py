"""LTX of ViT-Base/16 at 224 on ImageNet: the paper's settings (arXiv 2310.16584).

The explainee's weights come from the hub (or --config.explainee.weights=FILE). The explainer is the
published one, converted by tools/convert_ltx_checkpoint.py, or one of your own from
--config.task=pretrain. With the published checkpoint, --config.finetune.resume=True resumes its
Adam moments, step count and learning rate, as the original does.
The original pretrains with one image a class for 30 epochs on a schedule for 50,000 images, and so
never leaves the warm-up: --config.pretrain.images_per_class=1 and
--config.pretrain.schedule_steps=46875 do the same.

python -m ltx_jax.main --config=configs/vit_base.py --config.images=PATH \
    --config.explainer.checkpoint=pltx_vit_base.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    # The weights of google/vit-base-patch16-224, which the original takes.
    config.explainee.name = "vit_base_patch16_224.augreg_in21k_ft_in1k"
    return config
