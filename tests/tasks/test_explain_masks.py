"""Masks of their own as a user runs them: what is left, a restart, and the same from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_VIT
from ml_collections import ConfigDict
from running import lines, run

import ltx_jax
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.settings.configuration import defaults


@pytest.fixture
def direct(tmp_path: Path, vit_weights: Path, images: np.ndarray) -> ConfigDict:
    """Five images, explained in four steps by our recipe."""
    path = tmp_path / "images.npz"
    np.savez(path, images=np.round(255 * images[:5]).astype(np.uint8))
    settings = defaults()
    settings.images = str(path)
    settings.explainee.name = "vit"
    settings.explainee.weights = str(vit_weights)
    settings.explainee.sizes = ConfigDict(TINY_VIT)
    settings.finetune.steps = 4
    settings.finetune.slots = 2
    return settings


def stored(workdir: Path, name: str) -> np.ndarray:
    return np.load(workdir / "masks" / f"{name}.npy")


@pytest.mark.slow
def test_what_a_run_leaves_and_a_restart_completes(direct, tmp_path):
    out = tmp_path / "out"
    printed = run(direct, out)
    assert "5 explained" in printed and "final" in printed and "selected" not in printed
    masks, raw = stored(out, "final"), stored(out, "final.raw")
    assert masks.shape == (5, 16, 16) and raw.shape == (5, 8, 8)
    assert {path.name for path in (out / "masks").iterdir()} == {"final.npy", "final.raw.npy"}
    assert masks.min() >= 0 and masks.max() <= 1
    found = lines(out)
    assert all(one["final"]["step"] == one["steps"] == 4 for one in found)
    assert all(one["trace"]["score"] == [None] * 4 for one in found)
    summary = json.loads((out / "summary.json").read_text())
    mean = np.mean([one["final"]["srg"] for one in found])
    assert summary["final"]["srg"]["mean"] == pytest.approx(mean, abs=1e-3)
    assert "selected" not in summary
    whole = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    run(direct, out)
    assert (out / "results.jsonl").read_bytes() == whole
    np.testing.assert_array_equal(stored(out, "final"), masks)


def test_the_command_and_python_give_the_same_masks(direct, tmp_path, explainee):
    run(direct, tmp_path / "out")
    pictures = np.load(direct.images)["images"]
    result = ltx_jax.explain(explainee, pictures, steps=4, slots=2)
    np.testing.assert_array_equal(result.masks, stored(tmp_path / "out", "final"))
    other = ltx_jax.explain(explainee, pictures, steps=4, slots=2, seed=1)
    assert np.abs(other.each[0].raw["final"] - result.each[0].raw["final"]).max() > 0.01


def test_scores_of_what_is_stored_are_the_runs(direct, tmp_path):
    run(direct, tmp_path / "out")
    direct.task = "evaluate"
    run(direct, tmp_path / "out")
    again = json.loads((tmp_path / "out" / "evaluation.json").read_text())["methods"]["final"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["final"]
    for name in ("pos", "neg", "srg", "tied"):
        assert again[name] == summary[name]


@pytest.mark.slow
def test_a_pretrained_explainer_is_a_start(direct, tmp_path, explainer: Explainer):
    path = tmp_path / "explainer.safetensors"
    ltx_jax.save_explainer(path, explainer)
    direct.explainer.checkpoint = str(path)
    direct.finetune.steps = 0
    run(direct, tmp_path / "out")
    pictures = np.load(direct.images)["images"].astype(np.float32) / 255
    raw = explainer.draw(explainer.trained, explainer.prefix(pictures))[:, 0]
    np.testing.assert_allclose(stored(tmp_path / "out", "final.raw"), raw, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explainer.grid": 17}, "grid is 17: the longer side of an image has 16 pixels"),
        ({"explainer.start": "smooth"}, "unknown start 'smooth': there are centre, pltx, "),
        ({"explainer.start": "pltx"}, "needs config.explainer.checkpoint: give"),
        ({"objective.fills": ("black", "white")}, "unknown fill 'white': there are black"),
    ],
)
def test_what_cannot_be_used_is_one_line(direct, tmp_path, changes, message):
    direct.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=message):
        run(direct, tmp_path / "out")
    assert not (tmp_path / "out").exists()
