"""LaViSE through the main command: a word network on scenes of concepts, and filters in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import random_weights
from ml_collections import ConfigDict

from ltx_jax.data.concepts import CONCEPTS
from ltx_jax.errors import InputError
from ltx_jax.loading.word_explainers import load_words
from ltx_jax.runtime import Terminated
from ltx_jax.settings.configuration import defaults, read
from ltx_jax.tasks import train_words

pytest.importorskip("grain", reason="needs grain (the extra `pretrain`)")
SIZES = {"depth": 1}
WIDTH = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CNN's weights and word vectors of all concepts but one."""
    made = tmp_path_factory.mktemp("lavise")
    random_weights(made / "cnn.safetensors", "cifar_resnet20", **SIZES)
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=WIDTH).tolist() for name in CONCEPTS if name != "brick"}
    (made / "words.json").write_text(json.dumps(vectors))
    return made


def configuration(folder):
    config = defaults()
    config.task, config.images, config.limit = "train_words", "concepts", 24
    config.explainee.name = "cifar_resnet20"
    config.explainee.weights = str(folder / "cnn.safetensors")
    config.explainee.sizes = ConfigDict(SIZES)
    config.words.vectors, config.words.layer = str(folder / "words.json"), "layer3"
    config.words.supervised = 0.7
    config.pretrain.epochs, config.pretrain.batch_size = 2, 16
    config.pretrain.learning_rate, config.pretrain.warmup = 1e-2, 0.0
    config.pretrain.weight_decay = 0.0
    return config


@pytest.fixture(scope="module")
def trained(folder):
    told = train_words.run(read(configuration(folder)), folder / "trained")
    assert told.startswith(f"{folder / 'trained' / 'words.safetensors'}: 20 concepts learnt, 9 ")
    return folder / "trained"


def test_training_goes_on_where_it_was_left(folder, trained):
    curves = json.loads((trained / "training.json").read_text())["epochs"]
    assert curves[1]["losses"]["total"] < curves[0]["losses"]["total"]
    assert (
        {*curves[0]["scores"]}
        == {"loss", "recall_5"}
        == {*json.loads((trained / "test.json").read_text())}
    )
    names = json.loads((trained / "split.json").read_text())
    assert len({*names["training"]}) == len(names["training"])
    saved = load_words(trained / "words.safetensors")
    assert (saved.explainer.layer, saved.explainee) == ("layer3", "cifar_resnet20")
    both = {*saved.learnt.supervised, *saved.learnt.unseen}
    assert both == {*CONCEPTS} - {"brick"} and len(saved.learnt.unseen) == 9
    # Left in the middle and gone on with, it is the same.
    settings, again = read(configuration(folder)), folder / "again"
    source, _ = train_words.open_training_source(settings)
    explainee = train_words.open_explainee(settings, named=False)
    for leave in (lambda step: step == 2, lambda step: False):
        try:
            found, *_ = train_words.train_words(
                *(explainee, source, settings.words, settings.pretrain),
                workdir=again,
                leave=leave,
            )
        except Terminated:
            continue
    for path, leaf in found.trained.items():
        np.testing.assert_array_equal(leaf, saved.explainer.trained[path], err_msg=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"words.layer": "layer4"},
            "no layer 'layer4': did you mean layer3 or",
        ),
        ({"words.vectors": "none.json"}, "no word embedding at none.json: give one"),
        ({"words.least": 25}, "no concept is in 25 images, and the most frequent in"),
        ({"objects": (0, 0)}, "no image to train on has an annotation: give images with labels"),
        ({"words.supervised": 0.0}, "config.words.supervised is 0.0: it must be above 0"),
        ({"words.filters": (-1,)}, "config.words.filters has -1: give numbers from 0 on"),
        ({"pretrain.batch_size": 200}, "do not fill a batch of 200"),
    ],
)
def test_what_cannot_be_trained(folder, tmp_path, changes, message):
    config = configuration(folder)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        train_words.run(read(config), tmp_path)


def test_an_embedding_without_the_words(folder, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"chat": [1.0, 2.0]}))
    config = configuration(folder)
    config.words.vectors = str(tmp_path / "other.json")
    with pytest.raises(InputError, match="has a vector for none of 30 names: give an embedding"):
        train_words.run(read(config), tmp_path)
