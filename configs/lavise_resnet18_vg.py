"""LaViSE's configuration of ResNet-18 on Visual Genome: the filters of its last stage in words.

The network from features to words first, then the filters. Recall among the first 5, 10 and 20
words as published: .273, .353, .429; as reproduced by others: .163, .198, .243. No figure of it is
measured here: it takes a GPU.

Needs ResNet-18's weights (timm's from the hub, or torchvision's resnet18-f37072fd.pth through
tools/convert_weights.py), Visual Genome and GloVe's vectors (glove.6B.300d.txt of
nlp.stanford.edu).

python -m ltx_jax.main --config=configs/lavise_resnet18_vg.py --config.task=train_words \
    --config.images=VISUAL_GENOME --config.indices=:100000 \
    --config.words.vectors=glove.6B.300d.txt --workdir=results/lavise_resnet18_vg_words
python -m ltx_jax.main --config=configs/lavise_resnet18_vg.py \
    --config.images=VISUAL_GENOME --config.indices=100000: \
    --config.words.vectors=glove.6B.300d.txt \
    --config.words.checkpoint=results/lavise_resnet18_vg_words/words.safetensors
"""

from ml_collections import ConfigDict

from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LAVISE


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LAVISE)
    config.dataset = "visual_genome"
    config.explainee.name = "resnet18"
    config.words.layer = "layer4"
    return config
