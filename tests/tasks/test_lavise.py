"""LaViSE through the main command: a word network on scenes of concepts, and filters in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import random_weights
from ml_collections import ConfigDict

import ltx_jax
from configs import demo_filters
from ltx_jax.data.concepts import CONCEPTS
from ltx_jax.errors import InputError
from ltx_jax.loading.word_explainers import load_words
from ltx_jax.runtime import Terminated
from ltx_jax.settings.configuration import defaults, read
from ltx_jax.tasks import explain_filters, train_words
from ltx_jax.tasks.course import Course

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
    config.task, config.images, config.limit = "train_words", "concepts", 48
    config.explainee.name = "cifar_resnet20"
    config.explainee.weights = str(folder / "cnn.safetensors")
    config.explainee.sizes = ConfigDict(SIZES)
    config.words.vectors, config.words.layer = str(folder / "words.json"), "layer3"
    config.words.supervised = 0.7
    config.pretrain.epochs, config.pretrain.batch_size = 2, 16
    config.pretrain.learning_rate, config.pretrain.warmup = 1e-2, 0.0
    config.pretrain.weight_decay = 0.0
    return config


def explaining(folder, trained):
    config = configuration(folder)
    config.task, config.words.checkpoint = "explain_filters", str(trained / "words.safetensors")
    config.words.strongest, config.report.gallery = 4, 3
    return config


@pytest.fixture(scope="module")
def trained(folder):
    told = train_words.run(read(configuration(folder)), folder / "trained")
    assert told.startswith(f"{folder / 'trained' / 'words.safetensors'}: epoch ")
    assert told.endswith("; 20 concepts learnt, 9 left unseen")
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
    course = Course(source, settings.pretrain, workdir=again)
    for one in (course._replace(leave=lambda step: step == 2), course):
        try:
            found, *_ = train_words.train_words(explainee, settings.words, one)
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
        (
            {"pretrain.select": "pos"},
            "select is pos, which this training is not judged by",
        ),
        ({"pretrain.batch_size": 200}, "do not fill a batch of 200"),
    ],
)
def test_what_cannot_be_trained(folder, tmp_path, changes, message):
    config = configuration(folder)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        train_words.run(read(config), tmp_path)


def test_a_training_goes_on_with_the_names_that_it_had(folder, tmp_path):
    config, names = configuration(folder), [*CONCEPTS]
    config.class_names, config.pretrain.epochs = str(tmp_path / "names.txt"), 1
    (tmp_path / "names.txt").write_text("\n".join(names))
    train_words.run(read(config), tmp_path / "out")
    (tmp_path / "names.txt").write_text("\n".join([names[1], names[0], *names[2:]]))
    with pytest.raises(InputError, match=r"class names \(sha256\) was"):
        train_words.run(read(config), tmp_path / "out")


def test_an_embedding_without_the_words(folder, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"chat": [1.0, 2.0]}))
    config = configuration(folder)
    config.words.vectors = str(tmp_path / "other.json")
    with pytest.raises(InputError, match="has a vector for none of 30 names: give an embedding"):
        train_words.run(read(config), tmp_path)


def test_filters_in_words(folder, trained, tmp_path):
    told = explain_filters.run(read(explaining(folder, trained)), tmp_path)
    records = [json.loads(line) for line in (tmp_path / "filters.jsonl").read_text().splitlines()]
    assert [record["filter"] for record in records] == [*range(16)]
    fires = [record for record in records if record["words"]]
    for record in fires:
        weights = [word["weight"] for word in record["words"]]
        assert weights == sorted(weights, reverse=True) and 0 < weights[0] <= 1
        strengths = [image["activation"] for image in record["images"]]
        assert len(strengths) <= 4 and strengths == sorted(strengths, reverse=True)
        assert {word["word"] for word in record["words"]} <= {*CONCEPTS} - {"brick"}
    summary = json.loads((tmp_path / "filters.json").read_text())["recall"]
    known = summary["highest overlap"]["supervised"]["20"]["mean"]
    assert known > summary["random words"]["supervised"]["20"]["mean"]
    assert [line.split("  ")[0] for line in told.splitlines()[1:]] == ["recall, %", *summary]
    page = (tmp_path / "filters.html").read_text()
    assert page.count("<article") == 3 and "data:image/jpeg" in page and 'src="http' not in page


def test_words_that_were_told_wait_behind_the_others(folder, trained, tmp_path):
    config = explaining(folder, trained)
    config.words.handicap = 4.0  # more than cosines differ
    explain_filters.run(read(config), tmp_path)
    unseen = {*load_words(trained / "words.safetensors").learnt.unseen}
    records = [json.loads(line) for line in (tmp_path / "filters.jsonl").read_text().splitlines()]
    said = [{word["word"] for word in record["words"]} for record in records if record["words"]]
    assert said and all(words <= unseen for words in said)


def test_activations_are_those_of_all_images_at_once(folder, trained, tmp_path):
    config = explaining(folder, trained)
    config.words.filters = (5, 9)
    explain_filters.run(read(config), tmp_path)
    records = [json.loads(line) for line in (tmp_path / "filters.jsonl").read_text().splitlines()]
    source = explain_filters.open_source(read(config))
    explainee = explain_filters.open_explainee(read(config), named=False)
    how = explainee.preprocessing("squash")
    images = np.stack([source.load(i, how).as_input() for i in range(len(source))])
    features = np.asarray(explainee.intermediates(images)[1]["layer3"])
    for record, number in zip(records, (5, 9), strict=True):
        assert record["filter"] == number
        fired = features[..., number]
        order = np.argsort(-fired.max((1, 2)), kind="stable")[:4]
        greatest = fired.max((1, 2))[order]
        assert [one["name"] for one in record["images"]] == [
            source.names[i] for i, v in zip(order, greatest, strict=True) if v > 0
        ]
        exact = np.quantile(fired, 0.995, method="inverted_cdf")
        assert record["threshold"] == pytest.approx(max(exact, 0), rel=0.0101, abs=1e-5)


@pytest.mark.parametrize("stands", ["masked_features", "masked_image", "image"])
def test_other_ways_to_stand_for_a_filter(folder, trained, tmp_path, stands):
    config = explaining(folder, trained)
    config.words.stands, config.words.filters = stands, (3, 4)
    assert "2 filters" in explain_filters.run(read(config), tmp_path)


def test_from_python(folder, trained, tmp_path):
    config = explaining(folder, trained)
    explain_filters.run(read(config), tmp_path)
    source = explain_filters.open_source(read(config))
    explainee = explain_filters.open_explainee(read(config), named=False)
    how = explainee.preprocessing("squash")
    images = np.stack([source.load(i, how).image for i in range(len(source))])
    given = trained / "words.safetensors", folder / "words.json"
    found = ltx_jax.explain_filters(explainee, "layer3", images, *given, strongest=4)
    records = [json.loads(line) for line in (tmp_path / "filters.jsonl").read_text().splitlines()]
    for one, record in zip(found, records, strict=True):
        assert (one["filter"], one["words"]) == (record["filter"], record["words"])
    with pytest.raises(
        InputError, match="no option 'margin': there are filters, handicap, nearest,"
    ):
        ltx_jax.explain_filters(explainee, "layer3", images, *given, margin=2.0)


def test_images_without_annotations_and_a_filter_that_never_fires(
    folder, trained, tmp_path, caplog
):
    np.savez(tmp_path / "black.npz", images=np.zeros((3, 32, 32, 3), np.uint8))
    config = explaining(folder, trained)
    config.images, config.report.gallery = str(tmp_path / "black.npz"), 16
    told = explain_filters.run(read(config), tmp_path / "words")
    assert "the images have no annotations: words are found, and no recall is" in caplog.text
    assert "filters never fire, and have no words: " in caplog.text
    assert "–" in told.splitlines()[2]
    assert "It never fires." in (tmp_path / "words" / "filters.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words.checkpoint": None}, "filters need a word network: set config.words.checkpoint to"),
        ({"words.layer": "layer2"}, "is for the layer layer3, and config.words.layer is layer2"),
        ({"words.filters": (16,)}, "config.words.filters has 16: layer3 of cifar_resnet20 has fil"),
    ],
)
def test_what_cannot_be_explained(folder, trained, tmp_path, changes, message):
    config = explaining(folder, trained)
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        explain_filters.run(read(config), tmp_path)


def test_an_embedding_of_another_width(folder, trained, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({name: [1.0, 2.0] for name in CONCEPTS}))
    config = explaining(folder, trained)
    config.words.vectors = str(tmp_path / "other.json")
    with pytest.raises(InputError, match="vectors of 2 numbers, expected 6: give the embedding"):
        explain_filters.run(read(config), tmp_path)


@pytest.mark.slow
def test_the_demo_names_what_its_network_was_told(tmp_path):
    config = demo_filters.get_config()
    config.limit, config.words.strongest = 200, 10
    explain_filters.run(read(config), tmp_path)
    found = json.loads((tmp_path / "filters.json").read_text())["recall"]
    ours, frequent, most = (
        found[method]["supervised"]["5"]["mean"]
        for method in ("its words", "most frequent words", "highest overlap")
    )
    assert ours - frequent > (most - frequent) / 2
