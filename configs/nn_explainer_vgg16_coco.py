"""NN-Explainer's configuration of VGG-16 on COCO 2014: a mask for every class in one pass.

The classifier first, from torchvision's weights (vgg16-397923af.pth through
tools/convert_weights.py) with a head of its own on frozen features; then the explainer, DeepLabv3
on a ResNet-50; then the masks of the annotated classes. An original Lightning checkpoint goes
through tools/convert_nn_explainer_checkpoint.py instead.
The authors' split of train2014 is not to be had: a tenth, drawn by the seed, is held out. A class
is a category's id, so that there are 91.
No figure of it is measured here: it takes a GPU and days.

python -m ltx_jax.main --config=configs/nn_explainer_vgg16_coco.py \
    --config.task=train_classifier --config.explainee.weights=vgg16.safetensors \
    --config.images=COCO/train2014 \
    --config.pretrain.patience=5 --workdir=results/vgg16_coco_classifier
python -m ltx_jax.main --config=configs/nn_explainer_vgg16_coco.py --config.task=pretrain \
    --config.explainee.weights=results/vgg16_coco_classifier/classifier.safetensors \
    --config.images=COCO/train2014 --config.explainer.weights=resnet50.safetensors \
    --workdir=results/vgg16_coco_explainer
python -m ltx_jax.main --config=configs/nn_explainer_vgg16_coco.py \
    --config.explainee.weights=results/vgg16_coco_classifier/classifier.safetensors \
    --config.explainer.checkpoint=results/vgg16_coco_explainer/explainer.safetensors \
    --config.images=COCO/val2014 --config.subset=2000
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import NN_EXPLAINER


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(NN_EXPLAINER)
    config.dataset = "coco"
    config.labels = "classes"
    config.explainee.name = "vgg16"
    config.explainee.sizes.num_classes = 91
    config.explainer.classes = 91
    config.class_masks.variation = 0.3
    config.class_masks.class_area = 0.3
    config.class_masks.target_area = 0.03
    config.class_masks.other_area = 0.1
    config.pretrain.learning_rate = 1e-5
    config.pretrain.patience = 2
    return config
