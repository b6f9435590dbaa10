"""LaViSE's configuration of AlexNet on COCO: the filters of its last convolution in words.

The network from features to words first, then the filters. Recall among the first 5, 10 and 20
words as reproduced by others: .551, .571, .600. No figure of it is measured here: it takes a GPU.

Needs torchvision's weights (download.pytorch.org/models/alexnet-owt-7be5be79.pth through
tools/convert_weights.py), COCO and GloVe's vectors (glove.6B.300d.txt of nlp.stanford.edu).

python -m ltx_jax.main --config=configs/lavise_alexnet_coco.py --config.task=train_words \
    --config.explainee.weights=alexnet.safetensors --config.images=COCO/train2017 \
    --config.words.vectors=glove.6B.300d.txt \
    --workdir=results/lavise_alexnet_coco_words
python -m ltx_jax.main --config=configs/lavise_alexnet_coco.py \
    --config.explainee.weights=alexnet.safetensors --config.images=COCO/val2017 \
    --config.words.vectors=glove.6B.300d.txt \
    --config.words.checkpoint=results/lavise_alexnet_coco_words/words.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LAVISE


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LAVISE)
    config.dataset = "coco"
    config.labels = "classes"
    config.explainee.name = "alexnet"
    config.words.layer = "features"
    return config
