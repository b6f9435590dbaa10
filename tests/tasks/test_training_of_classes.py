"""Classifiers and explainers of every class, trained through the main command."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT, UNFINISHED, random_weights
from ml_collections import ConfigDict

import ltx_jax
from ltx_jax.data.image_files import FileSource
from ltx_jax.data.sources import ArraySource
from ltx_jax.errors import InputError
from ltx_jax.loading.classifiers import classifier_from
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.runtime import Terminated
from ltx_jax.settings.configuration import defaults, read
from ltx_jax.settings.sections import LTX, Network
from ltx_jax.tasks import pretrain, train_classifier
from ltx_jax.tasks.course import Course
from ltx_jax.tasks.inputs import named_by
from ltx_jax.tasks.training_images import classes_of
from ltx_jax.weights.files import read_safetensors

pytest.importorskip("grain")
pytestmark = [UNFINISHED, pytest.mark.usefixtures("orbax_gives_up")]
SIZES = TINY_VIT | {"image_size": 32, "patch_size": 8, "num_classes": 10}


@pytest.fixture
def scenes():
    """Twelve scenes of two to three objects, of which two are held out and two kept."""
    config = defaults(LTX)
    config.images, config.objects, config.limit = "scenes", (2, 3), 14
    config.target = "label"
    config.explainee.name, config.explainee.weights = "vit", "fresh"
    config.explainee.sizes = ConfigDict(SIZES)
    config.explainee.link = "sigmoid"
    config.pretrain.epochs, config.pretrain.batch_size = 3, 5
    config.pretrain.validation = config.pretrain.test = 2 / 14
    config.pretrain.learning_rate, config.pretrain.warmup = 3e-3, 0.0
    return config


def files(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture
def classifier(scenes, tmp_path):
    told = train_classifier.run(read(scenes), tmp_path / "classifier")
    assert told.startswith(str(tmp_path / "classifier" / "classifier.safetensors"))
    return tmp_path / "classifier" / "classifier.safetensors"


def test_a_classifier_from_nothing(scenes, classifier, tmp_path):
    folder = classifier.parent
    curves = json.loads((folder / "training.json").read_text())["epochs"]
    losses = [epoch["losses"]["total"] for epoch in curves]
    assert len(losses) == 3 and losses[2] < losses[1] < losses[0]
    test = json.loads((folder / "test.json").read_text())
    assert {"loss", "f1", "precision", "recall", "exact_match", "mean_average_precision"} < {*test}
    assert "Training" in (folder / "training.html").read_text()
    _, metadata = read_safetensors(classifier)
    assert metadata["link"] == "sigmoid" and json.loads(metadata["trained_for"]) == {
        "explainee.name": "vit"
    }
    # Left in the middle of an epoch and gone on with, it is the same.
    again, names = tmp_path / "again", ("classifier.safetensors", "training.json", "test.json")
    settings = read(scenes)
    source, apart = train_classifier.open_training_source(settings)
    how = {"compute_dtype": "float32", "attention": "xla", "class_names": (), "seed": 0}
    network, explainee = classifier_from(settings.explainee, **how)
    told = json.loads((folder / "settings.json").read_text())
    course = Course(source, settings.pretrain, workdir=again, fingerprint=told)
    for one in (course._replace(leave=lambda step: step == 3), course):
        try:
            train_classifier.train_classifier(network, explainee, one)
        except Terminated:
            assert not (again / "test.json").exists()
    assert files(again, *names) == files(folder, *names) and apart == 0


def test_masks_of_every_class(scenes, classifier, tmp_path):
    scenes.explainee.weights = str(classifier)
    scenes.explainer.classes, scenes.pretrain.select = 10, "last"
    folder = tmp_path / "explainer"
    told = pretrain.run(read(scenes), folder)
    assert f"{folder / 'explainer.safetensors'}: epoch 2, validation loss" in told
    curves = json.loads((folder / "pretraining.json").read_text())["epochs"]
    assert curves[2]["losses"]["total"] < curves[0]["losses"]["total"]
    through = {"accuracy", "precision", "recall", "f1", "exact_match", "mean_average_precision"}
    assert {*curves[0]["scores"]} == {"loss", *curves[0]["losses"]} - {"total"} | through
    assert {*json.loads((folder / "test.json").read_text())} == {*curves[0]["scores"]}
    explainee = load_explainee("vit", classifier, link="sigmoid", **SIZES)
    explainer = load_explainer(explainee, checkpoint=folder / "explainer.safetensors")
    assert explainer.classes == 10 and explainer.grid() == (4, 4)
    assert np.load(folder / "validation_masks.npy").shape == (3, 2, 4, 4)


def test_a_head_of_its_own_on_frozen_features(vit_weights, tmp_path):
    how = {"compute_dtype": "float32", "attention": "xla", "class_names": (), "seed": 0}
    given = Network("vit", str(vit_weights), TINY_VIT | {"num_classes": 3}, trained="head")
    network, explainee = classifier_from(given, **how)
    assert explainee.classes == 3 and {*network.trained} == {
        "params/head/kernel",
        "params/head/bias",
    }
    same, _ = classifier_from(Network("vit", str(vit_weights), TINY_VIT), **how)
    assert not same.frozen and same.whole and not network.whole
    state, _ = read_safetensors(vit_weights)
    np.testing.assert_array_equal(same.trained["params/head/kernel"], state["head.weight"].T)
    assert network.trained["params/head/kernel"].shape == (16, 3)


def test_frozen_features_are_as_in_evaluation(tmp_path):
    sizes = {"depths": (1, 1, 1, 1), "num_classes": 3}
    weights = random_weights(tmp_path / "resnet.safetensors", "resnet18", **sizes)
    how = {"compute_dtype": "float32", "attention": "xla", "class_names": (), "seed": 0}
    images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 3), np.float32))
    found = {}
    for part in ("head", "all"):
        network, _ = classifier_from(Network("resnet18", str(weights), sizes, trained=part), **how)
        moved = network.statistics if part == "all" else {}
        given = network.trained, moved, images, jax.random.key(0)
        found[part] = network.logits_in_training(*given)
        assert found[part][1].keys() == moved.keys()
    np.testing.assert_allclose(found["head"][0], network.logits(images), atol=1e-5)
    assert np.abs(found["all"][0] - network.logits(images)).max() > 0.01
    assert any((leaf != network.frozen[path]).any() for path, leaf in found["all"][1].items())


def test_images_of_their_own_are_held_out(scenes, tmp_path, caplog):
    rng = np.random.default_rng(0)
    for name, labels in (("a", [0, 1, 2] * 4), ("b", [2, 1, 0] * 4)):
        images = rng.integers(0, 255, (len(labels), 32, 32, 3), np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.array(labels))
    scenes.images, scenes.limit = str(tmp_path / "a.npz"), 12
    scenes.pretrain.held_out = str(tmp_path / "b.npz")
    scenes.explainee.link = "softmax"
    scenes.explainee.sizes.num_classes = 3
    # Named alike, they are two sets all the same.
    train_classifier.run(read(scenes), tmp_path / "same names")
    assert "12 images held out are named as some to train on, and are taken" in caplog.text
    split = json.loads((tmp_path / "same names" / "split.json").read_text())
    assert split["training"] == [f"{i:02d}" for i in range(12)]
    assert split["validation"] == [f"held out: {i:02d}" for i in range(12)]
    scenes.pretrain.held_out = scenes.images
    with pytest.raises(InputError, match=r"^the images to train on are those held out, 00 among"):
        train_classifier.run(read(scenes), tmp_path / "the same")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explainee.link": "softmax"}, r"scene-0000 has \d classes, and of a softmax one is the"),
        ({"explainee.sizes.num_classes": 4}, "10 class names for the 4 classes of vit"),
        ({"explainee.weights": "nothing.safetensors"}, "nothing"),
        ({"pretrain.held_out": "there.npz", "pretrain.train": "0:3", "pretrain.validate": "3:4"},
         "held_out are images of their own, and config.pretrain.validate is a slice"),
        ({"objects": (2,)}, r"config.objects is \(2,\): expected \(fewest, most\), up to 4"),
        ({"objects": (2, 9)}, r"expected \(fewest, most\), up to 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained(scenes, tmp_path, changes, message):
    scenes.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        train_classifier.run(read(scenes), tmp_path)


def test_a_network_whose_logits_are_never_below_zero(scenes, tmp_path):
    scenes.explainee.name = "squeezenet1_1"
    scenes.explainee.sizes = ConfigDict({"num_classes": 10})
    with pytest.raises(InputError, match="squeezenet1_1 ends in a ReLU, so that no logit is below"):
        train_classifier.run(read(scenes), tmp_path / "run")


def test_where_one_class_is_the_answer_each_image_has_one(scenes, classifier, tmp_path):
    scenes.explainee.weights, scenes.explainee.link = str(classifier), "softmax"
    scenes.explainer.classes, scenes.target = 10, "labels"
    with pytest.raises(InputError, match=r"scene-0000 has \d classes, and of a softmax one is the"):
        pretrain.run(read(scenes), tmp_path / "explainer")


def test_a_data_set_with_gaps_says_which_of_its_classes_are_missing(explainee, caplog):
    source = FileSource(("a", "b"), ((1,), (3,)), ("a", "b"), {1: "person", 3: "car", 4: "toaster"})
    classes_of(source, [0, 1], explainee)
    assert caplog.messages == ["no image to train on has 1 of the classes: toaster"]
    named = ("class 0", "person", "class 2", "car", "toaster")
    assert named_by(source, explainee).class_names == named
    caplog.clear()
    classes_of(source, [0, 1], named_by(source, explainee))
    assert caplog.messages == ["no image to train on has 1 of the classes: toaster"]
    few = replace(source, label_names={1: "person", 3: "car"})
    assert named_by(few, explainee).class_names == ()
    # Of five classes two have a folder: the others are missing, whatever they are called.
    caplog.clear()
    classes_of(few, [0, 1], explainee)
    assert caplog.messages == ["no image to train on has 3 of the classes: 0, 2, 4"]


def test_classes_that_no_image_has_are_named(explainee, caplog):
    known = ArraySource(("a", "b", "c"), ((0, 2), (), (1,)), np.zeros((3, 4, 4, 3), np.uint8))
    found = classes_of(known, [0, 1], explainee)
    assert found.tolist() == [[1, 0, 1, 0, 0], [0] * 5, [0, 1, 0, 0, 0]]
    assert "no image to train on has 3 of the classes: 1, 3, 4" in caplog.text
    with pytest.raises(InputError, match="b has the label 5: vit has classes 0 to 4"):
        classes_of(replace(known, labels=((0,), (5,), ())), [0], explainee)
    with pytest.raises(InputError, match="no image to train on has a class: give config"):
        classes_of(known, [1], explainee)


def test_targets_that_masks_are_not_trained_for(explainee, explainer):
    every = load_explainer(explainee, classes=5)
    for network, target, message in (
        (explainer, "labels", "target is labels, and one mask is trained for one class of each"),
        (every, "every", "target is every, and an image's classes are told apart from all others"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain.refuse_several(target, network)
    pretrain.refuse_several("held", every)


@pytest.mark.slow
def test_masks_of_every_class_from_python(explainee, images):
    multi = replace(explainee, link="sigmoid")
    start = load_explainer(multi, classes=5, seed=3)
    labels = [[0, 1], [2], [], [4], [1], [0, 3], [2, 3]]
    how = {"batch_size": 2, "epochs": 2, "validation": 0.3, "test": 0.0, "learning_rate": 3e-3}
    found = ltx_jax.pretrain(multi, images, labels, start, target="label", **how)
    matrix = np.zeros((7, 5), bool)
    for row, classes in zip(matrix, labels, strict=True):
        row[classes] = True
    again = ltx_jax.pretrain(multi, images, matrix, start, target="label", **how)
    assert found.classes == 5
    for path, leaf in found.trained.items():
        np.testing.assert_array_equal(leaf, again.trained[path])
        assert (leaf != start.trained[path]).any(), path
    for wrong, message in (
        (labels[:3], "3 labels for 7 images: give one an image"),
        ([[0, 7]] * 7, "label 7: vit has classes 0 to 4"),
        (matrix[:, :4], r"labels are bool \(7, 4\): expected bool \[images,5\]"),
    ):
        with pytest.raises(InputError, match=message):
            ltx_jax.pretrain(multi, images, wrong, start, target="label", **how)
