"""NN-Explainer's configuration of VGG-16 on VOC 2007: a mask for every class in one pass.

The classifier first, from torchvision's weights (vgg16-397923af.pth through
tools/convert_weights.py) with a head of its own on frozen features; then the explainer, DeepLabv3
on a ResNet-50; then the masks of the annotated classes. An original Lightning checkpoint goes
through tools/convert_nn_explainer_checkpoint.py instead.
Objects marked as difficult count, as in the original (`config.labels=not_difficult` leaves them
out).
No figure of it is measured here: it takes a GPU and days.

python -m ltx_jax.main --config=configs/nn_explainer_vgg16_voc.py \
    --config.task=train_classifier --config.explainee.weights=vgg16.safetensors \
    --config.images=VOCdevkit/VOC2007/ImageSets/Main/train.txt \
    --config.pretrain.held_out=VOCdevkit/VOC2007/ImageSets/Main/val.txt \
    --workdir=results/vgg16_voc_classifier
python -m ltx_jax.main --config=configs/nn_explainer_vgg16_voc.py --config.task=pretrain \
    --config.explainee.weights=results/vgg16_voc_classifier/classifier.safetensors \
    --config.images=VOCdevkit/VOC2007/ImageSets/Main/train.txt \
    --config.pretrain.held_out=VOCdevkit/VOC2007/ImageSets/Main/val.txt \
    --config.explainer.weights=resnet50.safetensors \
    --workdir=results/vgg16_voc_explainer
python -m ltx_jax.main --config=configs/nn_explainer_vgg16_voc.py \
    --config.explainee.weights=results/vgg16_voc_classifier/classifier.safetensors \
    --config.explainer.checkpoint=results/vgg16_voc_explainer/explainer.safetensors \
    --config.images=VOCdevkit/VOC2007/ImageSets/Main/test.txt
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import NN_EXPLAINER


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(NN_EXPLAINER)
    config.dataset = "voc"
    config.labels = "classes"
    config.explainee.name = "vgg16"
    config.explainee.sizes.num_classes = 20
    config.explainer.classes = 20
    config.pretrain.learning_rate = 1e-5
    return config
