"""The masks of an image's classes merged into one, scored as by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_weights
from page import Balanced
from running import lines, run
from segmentation_sets import rectangle

from ltx_jax.data.scenes import CLASSES
from ltx_jax.data.sources import ArraySource
from ltx_jax.models.explainee import Explainee
from ltx_jax.tasks.inputs import Work, plan
from ltx_jax.tasks.maps import Map
from ltx_jax.tasks.merged import sets_of
from ltx_jax.tasks.scoring import Asked, score_rows

LEFT, RIGHT = rectangle(4, 4, 0, 0, 4, 1), rectangle(4, 4, 0, 3, 4, 4)


def thirds(params, images):
    """Logits: of each channel its mean."""
    return params * images.mean((1, 2))


@pytest.fixture
def work() -> Work:
    """Two white images of two objects each, the second image's void altogether; three classes."""
    explainee = Explainee(thirds, np.float32(2), (4, 4), 3)
    images = np.ones((2, 4, 4, 3), np.float32) * np.float32([1, 0.5, 0])
    truth = np.stack([np.stack([LEFT, RIGHT])] * 2)
    void = np.stack([np.zeros((4, 4), bool), LEFT | RIGHT])
    source = ArraySource(("a", "b"), ((0, 2), (1, 2)), images, truth, void)
    how = explainee.preprocessing("squash")
    return Work(explainee, source, how, plan(source, explainee, "labels"), ("pos",))


def scored(sets, maps, asked=None) -> list[dict]:
    groups = score_rows(sets.work, asked or sets.asked, maps, None, scored=sets.scores)
    return [line for group in groups for _, line in group]


def test_a_merged_mask_is_scored_against_all_objects(work):
    # Of the first image: half of the left object's value, and all of the middle two columns.
    masks = [0.5 * LEFT, rectangle(4, 4, 0, 1, 4, 3), LEFT, RIGHT]
    maps = [Map(np.float32(mask)) for mask in masks]
    sets = sets_of(work, [Asked(row, one.target) for row, one in enumerate(work.rows)])
    assert sets.asked == [Asked(0, 0), Asked(1, 1)]
    merged = sets.merged(maps.__getitem__)
    np.testing.assert_array_equal(merged(0).mask[0], [0.5, 1, 1, 0])
    first, second = scored(sets, merged)
    assert (first["image"], first["classes"]) == ("a", [0, 2])
    # 8 pixels are true; at .25 12 are marked and 4 of them true, at .5 8 and none.
    expected = {"f1_25": 40, "f1_50": 0, "f1_75": 0, "soft_f1": 100 * 2 * 2 / (10 + 8)}
    expected |= {"soft_iou": 100 * 2 / 16, "object_coverage": 25, "background_coverage": 100}
    expected |= {"overlap": 100 * (1 - 14 / 16)}
    assert {name: first[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    # What is hidden is grey: nobody says what this classifier's mean colour is.
    mean = 2 * (10 / 16 * np.array([1, 0.5, 0]) + 6 / 16 * 0.5)
    p = np.exp(mean) / np.exp(mean).sum()
    assert first["share"] == pytest.approx(p[0] + p[2], abs=1e-5)
    assert first["saliency"] == pytest.approx(np.log(10 / 16) - np.log(p[0] + p[2]), abs=1e-5)
    assert first["entropy"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
    # Each class by itself, the answer is read alike.
    several = replace(work.explainee, link="sigmoid")
    sets = sets._replace(work=sets.work._replace(explainee=several))
    assert scored(sets, merged)[0] == first
    # No object of the second image counts: it has the scores that need none.
    assert second["soft_f1"] is None and second["saliency"] is not None


def test_yardsticks(work):
    sets = sets_of(work, [Asked(row, one.target) for row, one in enumerate(work.rows)][:3])
    found = {name: scored(sets, maps, asked) for name, (maps, asked) in sets.yardsticks().items()}
    assert list(found) == ["zeros", "half", "ones", "perfect"]
    assert [found[name][0]["soft_iou"] for name in found] == pytest.approx([0, 100 / 3, 50, 100])
    assert found["perfect"][0]["f1_mean"] == 100
    assert found["zeros"][0]["saliency"] == pytest.approx(np.log(0.05) - np.log(2 / 3), abs=1e-5)
    bare = work._replace(source=ArraySource(("a", "b"), ((0,), (1,)), work.source.images))
    without = sets_of(bare, [Asked(0, None)])
    assert not without.yardsticks() and without.work.scores == (
        "share",
        "saliency",
        "sparsity",
        "entropy",
    )
    assert scored(without, lambda row: Map(np.ones((2, 2), np.float32)))[0]["classes"] == [0]


def test_the_page_compares_merged_masks_as_well(config, tmp_path):
    config.images, config.limit, config.task, config.target = "scenes", 3, "evaluate", "labels"
    config.explainee.sizes.num_classes = len(CLASSES)
    config.explainee.weights = str(
        random_weights(tmp_path / "ten.safetensors", "vit", **config.explainee.sizes)
    )
    config.rivals, config.evaluate.merged = ("gradient_x_input",), True
    printed = run(config, tmp_path / "out")
    assert "all classes of an image, their masks merged:" in printed and "soft F1 ↑" in printed
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert told["methods"].keys() == {"gradient_x_input"} and told["rows"] > 3
    merged = told["merged"]["methods"]
    assert list(merged) == ["gradient_x_input", "zeros", "half", "ones", "perfect"]
    assert merged["perfect"]["soft_iou"]["mean"] == 100
    assert merged["gradient_x_input"]["soft_iou"]["mean"] < 100
    each = lines(tmp_path / "out", "merged.jsonl")
    assert [one["image"] for one in each[:3]] == [f"scene-000{i}" for i in range(3)]
    page = Balanced((tmp_path / "out" / "evaluation.html").read_text())
    assert "Scores for all classes of an image, their masks merged" in page.text
    assert "the objects themselves" in page.text
    before = (tmp_path / "out" / "scores" / "half-for-merged.jsonl").read_bytes()
    assert run(config, tmp_path / "out") == printed
    assert (tmp_path / "out" / "scores" / "half-for-merged.jsonl").read_bytes() == before
