"""The filters of a small CNN in words: what each of its last stage's 64 answers to.

Needs nothing: the CNN, which knows thirty concepts (shapes, patterns, colours, directions), the
network from its features to words, and the words' vectors are bundled (made by
tools/make_filter_demo.py); scenes are drawn on the spot. Six of the concepts are words that the
network was never told.
Takes: a quarter of a minute on two CPU cores, compilation included.

python -m ltx_jax.main --config=configs/demo_filters.py
"""

from pathlib import Path

from ml_collections import ConfigDict

import ltx_jax
from ltx_jax.settings.configuration import defaults
from ltx_jax.settings.sections import LAVISE

ASSETS = Path(ltx_jax.__file__).parent / "assets"


def get_config() -> ConfigDict:
    """The settings."""
    config = defaults(LAVISE)
    config.images = "concepts"
    config.limit = 1000
    config.explainee.name = "cifar_resnet20"
    config.explainee.weights = str(ASSETS / "demo_filters_explainee.safetensors")
    config.explainee.sizes = ConfigDict({"image_size": 48, "depth": 14, "num_classes": 30})
    config.explainee.link = "sigmoid"
    config.words.layer = "layer3"
    config.words.vectors = str(ASSETS / "demo_filters_vectors.json")
    # At none its words are those that it was told (57 % recall at five) and hardly any other (4 %).
    config.words.handicap = 0.25
    config.words.checkpoint = str(ASSETS / "demo_filters_words.safetensors")
    return config
