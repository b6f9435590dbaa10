"""LTX of SqueezeNet 1.1 on ImageNet photographs, on a laptop.

Needs torchvision's weights (download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth through
tools/convert_weights.py). Pretrain an explainer on a few hundred photographs first:

python -m ltx_jax.main --config=configs/squeezenet.py --config.task=pretrain \
    --config.images=PHOTOGRAPHS --config.explainee.weights=squeezenet1_1.safetensors \
    --workdir=results/squeezenet_pretrained
python -m ltx_jax.main --config=configs/squeezenet.py --config.images=PHOTOGRAPHS \
    --config.explainee.weights=squeezenet1_1.safetensors \
    --config.explainer.checkpoint=results/squeezenet_pretrained/explainer.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LTX


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LTX)
    config.explainee.name = "squeezenet1_1"
    # A mask that shows most of the image to begin with: few images are enough then.
    config.explainer.head_bias = 2.0
    config.objective.mask_weight = 15.0
    config.finetune.learning_rate = 2e-4
    # Its predictions break so easily that POS is at its best before finetuning: NEG selects.
    config.finetune.optimize = "neg"
    # For the same reason POS would choose an epoch whose masks are still poor.
    config.pretrain.select = "last"
    config.pretrain.epochs = 10
    config.pretrain.batch_size = 25
    config.pretrain.learning_rate = 1e-4
    # At one rate: of so few steps a rise and a fall leave half.
    config.pretrain.warmup = 0.0
    config.pretrain.schedule_steps = 1_000_000_000
    return config
