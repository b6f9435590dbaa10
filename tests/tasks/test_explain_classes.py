"""An explainer with a mask for every class as a user runs it: a row for each image and class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import random_weights
from ml_collections import ConfigDict
from page import Balanced
from running import lines, run

import ltx_jax
from configs import demo_classes
from ltx_jax.data.scenes import CLASSES, SceneSource
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer, load_mask
from ltx_jax.masks.tokens import activate, upsample
from ltx_jax.models.explainee import Explainee
from ltx_jax.settings.configuration import read
from ltx_jax.tasks.inputs import open_explainee


@pytest.fixture(scope="module")
def every(explainee: Explainee) -> Explainer:
    """A mask for each of five classes, of different classes well apart."""
    network = load_explainer(explainee, classes=5, seed=3)
    kernel = network.trained["params/head/mask/kernel"]
    far = {"params/head/mask/kernel": 5 * np.asarray(kernel)}
    return network.replace(trained=network.trained | far)


@pytest.fixture
def classes(config: ConfigDict, every: Explainer, tmp_path: Path) -> ConfigDict:
    """Three images, the explainer's masks as they are."""
    ltx_jax.save_explainer(tmp_path / "every.safetensors", every)
    config.explainer.checkpoint = str(tmp_path / "every.safetensors")
    config.indices, config.finetune.steps = "3:6", 0
    return config


@pytest.mark.slow
def test_a_row_has_its_classes_mask(classes, every, explainee, images, tmp_path):
    raw = every.draw(every.trained, every.prefix(images[:2]))
    expected = np.asarray(activate(upsample(raw, (16, 16)), "sigmoid"))
    asked = explainee, images[:2], [[1, 4], [0]]
    found = ltx_jax.explain(*asked, every, steps=2, stop_below=-1.0)
    assert np.abs(found.token_masks("last") - found.token_masks("pltx")).max(axis=(1, 2)).min() > 0
    assert found.targets.tolist() == [1, 4, 0]
    np.testing.assert_allclose(found.token_masks("pltx"), expected[[0, 0, 1], [1, 4, 0]], atol=1e-5)
    # The mask itself starts from that of the class as well.
    start = load_mask(explainee, every)
    values = ltx_jax.explain(*asked, start, steps=0)
    order = np.stack([one.raw["final"] for one in values.each])
    pixels = np.asarray(upsample(raw, (16, 16)))
    np.testing.assert_allclose(order, pixels[[0, 0, 1], [1, 4, 0]], atol=1e-5)


def test_no_optimizer_of_all_classes_is_resumed_for_one(classes, tmp_path):
    classes.finetune.resume = True
    with pytest.raises(InputError, match=r"mask for each of 5 classes, and config.finetune.res"):
        run(classes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def scenes(config: ConfigDict, tmp_path: Path) -> ConfigDict:
    """Three scenes, of one to two of ten classes each, and an explainer of all of these."""
    config.images, config.limit, config.target = "scenes", 3, "labels"
    config.explainee.sizes.num_classes = len(CLASSES)
    weights = random_weights(tmp_path / "ten.safetensors", "vit", **config.explainee.sizes)
    config.explainee.weights = str(weights)
    ten = load_explainee("vit", weights, **config.explainee.sizes)
    network = load_explainer(ten, classes=len(CLASSES), seed=3)
    ltx_jax.save_explainer(tmp_path / "ten-masks.safetensors", network)
    config.explainer.checkpoint = str(tmp_path / "ten-masks.safetensors")
    config.finetune.steps = 0
    return config


@pytest.mark.slow
def test_a_run_is_evaluated_with_its_class_table(scenes, tmp_path):
    out = tmp_path / "out"
    assert "explained" in run(scenes, out)
    rows = lines(out)
    assert [one["image"] for one in rows] == [
        f"scene-000{i}" for i, of in enumerate(SceneSource(0, range(3)).labels) for _ in of
    ]
    several = sum(len(set(of)) > 1 for of in SceneSource(0, range(3)).labels)
    assert several and (out / "report.html").read_text().count("article class=classes") == several
    scenes.task, scenes.evaluate.class_table, scenes.evaluate.merged = "evaluate", True, True
    scenes.rivals = ("gradient_x_input",)
    run(scenes, out)
    told = json.loads((out / "evaluation.json").read_text())
    assert [*told["class_tables"]] == ["explainer", "gradient_x_input"]
    table, rival = (told["class_tables"][name] for name in ("explainer", "gradient_x_input"))
    assert table["unmasked"] == rival["unmasked"] and table["images"] == rival["images"]
    assert table["means"] != rival["means"]
    assert table["classes"] == list(CLASSES)
    present = [label for labels in SceneSource(0, range(3)).labels for label in set(labels)]
    assert table["images"] == [present.count(i) for i in range(len(CLASSES))]
    assert [row is not None for row in table["means"]] == [n > 0 for n in table["images"]]
    assert "Image class × mask class" in Balanced((out / "evaluation.html").read_text()).text
    assert (
        (out / "class_table.csv")
        .read_text()
        .startswith("method,image class,images,no mask,striped disc,")
    )
    assert (out / "class_table.md").exists() and "merged" in told
    # Nothing is computed again, but for other classes.
    files = [*(out / "scores").glob("class_table-of-*.jsonl")]
    before = [file.read_bytes() for file in files]
    run(scenes, out)
    assert [file.read_bytes() for file in files] == before and len(files) == 2


@pytest.mark.slow
def test_classes_that_are_held_to_be_there_are_explained(scenes, tmp_path):
    scenes.limit, scenes.target, scenes.explainee.link = 2, "held", "sigmoid"
    scenes.classes = tuple(map(str, range(2, 10)))
    run(scenes, tmp_path / "out")
    settings = read(scenes)
    ten = open_explainee(settings)
    source = SceneSource(0, range(2))
    pictures = [source.load(i, ten.preprocessing("squash")).as_input() for i in range(2)]
    logits = np.asarray(ten(np.stack(pictures)))
    found = [(one["image"], one["class"]) for one in lines(tmp_path / "out")]
    assert found == [
        (f"scene-000{i}", int(k)) for i in range(2) for k in np.flatnonzero(logits[i] > 0) if k > 1
    ]
    assert len(found) > 2


def test_a_class_table_needs_a_mask_for_every_class(scenes, tmp_path):
    scenes.task, scenes.evaluate.class_table = "evaluate", True
    scenes.rivals, scenes.explainer.checkpoint = (), None
    (tmp_path / "maps").mkdir()
    rows = sum(len(set(of)) for of in SceneSource(0, range(3)).labels)
    np.save(tmp_path / "maps" / "mine.npy", np.zeros((rows, 4, 4), np.float32))
    scenes.evaluate.masks = str(tmp_path / "maps")
    with pytest.raises(InputError, match="class_table is of an explainer with a mask for every"):
        run(scenes, tmp_path / "out")


@pytest.mark.slow
def test_in_the_demo_each_mask_shows_its_own_object(tmp_path):
    config = demo_classes.get_config()
    config.limit, config.seed, config.rivals, config.finetune.steps = 4, 11, (), 0
    run(config, tmp_path / "run")
    found = lines(tmp_path / "run")
    assert len(found) > 8 and len({row["class"] for row in found}) > 4
    for row in found:
        # With all objects of a scene, 2 to 4 of about a size, none overlaps as much.
        assert row["pltx"]["iou"] > 40, row
    assert np.mean([row["pltx"]["soft_iou"] for row in found]) > 60
