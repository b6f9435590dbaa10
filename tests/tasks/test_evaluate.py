"""The task `evaluate`: what a run stored, and maps of any origin."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import random_weights
from running import lines, run

from ltx_jax.data.scenes import CLASSES
from ltx_jax.errors import InputError

METHODS = {"pltx", "selected", "last", "by_loss"}


def test_what_a_run_stored_has_the_scores_of_the_run(config, tmp_path):
    run(config, tmp_path / "out")
    before = {line["row"]: line for line in lines(tmp_path / "out") if "skipped" not in line}
    config.task = "evaluate"
    printed = run(config, tmp_path / "out")
    assert "5 rows scored" in printed
    for name in METHODS:
        found = lines(tmp_path / "out", f"scores/{name}.jsonl")
        assert [line["row"] for line in found] == list(before)
        for line in found:
            row = before[line["row"]]
            assert line["class"] == row["class"]
            shared = {key: value for key, value in line.items() if key in row[name]}
            assert {"pos", "neg", "ins", "del", "adp", "pic", "srg"} <= shared.keys()
            expected = {key: row[name][key] for key in shared}
            assert shared == pytest.approx(expected, rel=1e-4, abs=1e-3)
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert summary.keys() == METHODS


def test_the_image_beside_is_the_next_of_the_run(config, tmp_path):
    config.scores = ("srg_other", "srg_mean")
    run(config, tmp_path / "out")
    before = {
        line["row"]: line["selected"] for line in lines(tmp_path / "out") if "selected" in line
    }
    config.task = "evaluate"
    run(config, tmp_path / "out")
    found = {line["row"]: line for line in lines(tmp_path / "out", "scores/selected.jsonl")}
    assert found.keys() == before.keys() == {0, 1, 3, 4, 5}
    for row, scores in found.items():
        for name in config.scores:
            assert scores[name] == pytest.approx(before[row][name], abs=1e-3)
    # The third image, `bad`, cannot be read, and so the second has none beside it.
    assert [row for row, scores in found.items() if scores["srg_other"] is None] == [1]


def test_scenes_are_drawn_again_without_their_parts(config, tmp_path):
    config.images, config.limit, config.task = "scenes", 3, "evaluate"
    config.explainee.sizes.num_classes = len(CLASSES)
    config.explainee.weights = str(
        random_weights(tmp_path / "ten.safetensors", "vit", **config.explainee.sizes)
    )
    config.scores = ("single_deletion",)
    maps = np.random.default_rng(0).random((3, 16, 16), np.float32)
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "random.npy", maps)
    np.save(tmp_path / "maps" / "nothing.npy", 0 * maps)
    config.evaluate.masks = str(tmp_path / "maps")
    run(config, tmp_path / "out")
    values = {
        name: [one["single_deletion"] for one in lines(tmp_path / "out", f"scores/{name}.jsonl")]
        for name in ("random", "nothing")
    }
    assert values["nothing"] == [None] * 3
    assert all(-1 <= value <= 1 for value in values["random"])


def test_a_folder_of_maps_and_only_what_is_missing(config, tmp_path):
    config.task = "evaluate"
    maps = tmp_path / "maps"
    maps.mkdir()
    rng = np.random.default_rng(0)
    np.save(maps / "cells.npy", rng.random((6, 3, 5), np.float32))
    np.save(maps / "signed.npy", rng.normal(size=(6, 16, 16)))
    config.evaluate.masks = str(maps)
    run(config, tmp_path / "out")
    first = (tmp_path / "out" / "scores" / "signed.jsonl").read_bytes()
    assert len(lines(tmp_path / "out", "scores/cells.jsonl")) == 5  # one image cannot be read
    config.scores = ("rise_deletion",)
    with pytest.raises(InputError, match="scores was"):
        run(config, tmp_path / "out")
    config.scores = ()
    run(config, tmp_path / "out")
    assert (tmp_path / "out" / "scores" / "signed.jsonl").read_bytes() == first
    cells = lines(tmp_path / "out", "scores/cells.jsonl")
    changed = np.load(maps / "cells.npy")
    changed[1] = 1 - changed[1]
    np.save(maps / "cells.npy", changed)
    run(config, tmp_path / "out")
    again = lines(tmp_path / "out", "scores/cells.jsonl")
    assert [one for one in again if one["row"] != 1] == [one for one in cells if one["row"] != 1]
    (before,), (now,) = ([one for one in found if one["row"] == 1] for found in (cells, again))
    assert now["map"] != before["map"] and now["neg"] != before["neg"]


def test_a_file_for_each_image(config, tmp_path):
    config.task = "evaluate"
    config.limit = 2
    rng, both = np.random.default_rng(0), tmp_path / "both"
    values = rng.random((2, 4, 4), np.float32)
    for folder in (tmp_path / "mine", both):
        folder.mkdir()
    for name, one in zip("ab", values, strict=True):
        np.save(tmp_path / "mine" / f"{name}.npy", one)
    np.save(both / "mine.npy", values)
    config.evaluate.masks = str(tmp_path / "mine")
    run(config, tmp_path / "one")
    config.evaluate.masks = str(both)
    run(config, tmp_path / "two")
    scores = [lines(tmp_path / which, "scores/mine.jsonl") for which in ("one", "two")]
    assert scores[0] == scores[1] and len(scores[0]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no folder .*: set config.evaluate.masks"),
        ({}, "holds no .npy files"),
        ({"m": np.zeros((5, 4, 4))}, r"array of shape \(5, 4, 4\): expected \[6,g,h\]"),
        ({"m": np.full((6, 4, 4), np.inf)}, r"row 0 of .*m\.npy holds values that are no numbers"),
        ({"m": np.full((6, 4, 4), "x")}, "expected numbers"),
    ],
)
def test_maps_that_do_not_fit_are_one_line(config, tmp_path, content, message):
    config.task = "evaluate"
    config.evaluate.masks = str(tmp_path / "maps")
    if content is not None:
        (tmp_path / "maps").mkdir()
        for name, values in content.items():
            np.save(tmp_path / "maps" / f"{name}.npy", values)
    with pytest.raises(InputError, match=message) as caught:
        run(config, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_half_a_file_is_named(config, tmp_path):
    config.task = "evaluate"
    config.evaluate.masks = str(tmp_path)
    (tmp_path / "m.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"m\.npy is not a whole \.npy file"):
        run(config, tmp_path / "out")
