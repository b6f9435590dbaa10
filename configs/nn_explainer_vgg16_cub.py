"""NN-Explainer's configuration of VGG-16 on CUB-200: a mask for every class in one pass.

The classifier first, from torchvision's weights (vgg16-397923af.pth through
tools/convert_weights.py) with a head of its own on frozen features; then the explainer, DeepLabv3
on a ResNet-50; then the masks of the annotated classes. An original Lightning checkpoint goes
through tools/convert_nn_explainer_checkpoint.py instead.
One class is the answer. The authors' own lists (ltx_jax/data/README.md) have a validation set:
CUB/train with --config.pretrain.held_out=CUB/val.
No figure of it is measured here: it takes a GPU and days.

python -m ltx_jax.main --config=configs/nn_explainer_vgg16_cub.py \
    --config.task=train_classifier --config.explainee.weights=vgg16.safetensors \
    --config.images=CUB_200_2011/train --workdir=results/vgg16_cub_classifier
python -m ltx_jax.main --config=configs/nn_explainer_vgg16_cub.py --config.task=pretrain \
    --config.explainee.weights=results/vgg16_cub_classifier/classifier.safetensors \
    --config.images=CUB_200_2011/train --config.explainer.weights=resnet50.safetensors \
    --workdir=results/vgg16_cub_explainer
python -m ltx_jax.main --config=configs/nn_explainer_vgg16_cub.py \
    --config.explainee.weights=results/vgg16_cub_classifier/classifier.safetensors \
    --config.explainer.checkpoint=results/vgg16_cub_explainer/explainer.safetensors \
    --config.images=CUB_200_2011/test
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import NN_EXPLAINER


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(NN_EXPLAINER)
    config.dataset = "cub"
    config.target = "label"
    config.explainee.link = "softmax"
    config.explainee.name = "vgg16"
    config.explainee.sizes.num_classes = 200
    config.explainer.classes = 200
    config.pretrain.learning_rate = 1e-5
    return config
