"""The main command as a user runs it: results, restart, and each kind of bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import load_file

from ltx_jax import pretraining
from ltx_jax import run as run_module
from ltx_jax.defaults import defaults
from ltx_jax.engine import explain, memory
from ltx_jax.engine.finetune import FinetuneSettings
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.objectives.ltx import Objective
from ltx_jax.run import run

FILES = {
    "settings.json",
    "layout.json",
    "results.jsonl",
    "masks.npy",
    "summary.json",
    "report.html",
    "overlays",
}


@pytest.fixture
def config(tmp_path: Path, vit_weights: Path) -> ConfigDict:
    """Five good images and a truncated one, explained in four steps."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcde":
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(rng.integers(0, 255, (50, 50, 3), np.uint8)).save(folder / "bad.jpg")
    (folder / "bad.jpg").write_bytes((folder / "bad.jpg").read_bytes()[:700])
    settings = defaults()
    settings.images = str(folder)
    settings.explainee.name = "vit"
    settings.explainee.weights = str(vit_weights)
    settings.explainee.sizes = ConfigDict(TINY_VIT)
    settings.finetune.steps = 4
    settings.finetune.slots = 2
    return settings


@pytest.fixture(autouse=True)
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer devices than images, so that slots are refilled."""
    monkeypatch.setattr(memory, "slot_mesh", lambda images: slot_mesh(min(images, 2)))


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def test_what_a_run_leaves(config, tmp_path):
    config.labels = str(tmp_path / "labels.txt")
    Path(config.labels).write_text("0\n1\n2\n3\n4\n0\n")
    printed = run(config, tmp_path / "out")
    assert "5 explained, 1 skipped" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    found = lines(tmp_path / "out")
    assert [line["image"] for line in found] == [
        "a.png",
        "b.png",
        "bad.jpg",
        *("c.png", "d.png", "e.png"),
    ]
    assert "truncated" in found[2]["skipped"]
    masks = np.load(tmp_path / "out" / "masks.npy")
    assert masks.shape == (6, 4, 4, 4) and np.isnan(masks[2]).all()
    for line in (found[0], found[5]):
        assert line["class"] == line["predicted"]
        assert len(line["trace"]["score"]) == len(line["trace"]["loss"]) == line["steps"]
        # Lazy scoring leaves gaps, but never where the mask could have been selected.
        known = [score for score in line["trace"]["score"] if score is not None]
        assert line["selected"]["pos"] == min(known)
        assert line["last"]["step"] == line["steps"] - 1
        assert ("for_label" in line) == (line["label"] != line["class"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["done"], summary["skipped"]) == (5, 1)
    done = [line for line in found if "skipped" not in line]
    mean = np.mean([line["selected"]["neg"] for line in done])
    assert summary["selected"]["neg"]["mean"] == pytest.approx(mean, abs=1e-3)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 5


def test_a_killed_run_goes_on_to_the_same_results(config, tmp_path, monkeypatch):
    config.finetune.slots = None
    run(config, tmp_path / "whole")
    add, added = run_module.ResultStore.add, []

    def killed(*arguments: object) -> None:
        if added:
            raise KeyboardInterrupt
        added.append(add(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(run_module.ResultStore, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "killed")
    assert 0 < len(lines(tmp_path / "killed")) < 6
    shutil.copytree(tmp_path / "killed", tmp_path / "otherwise")
    # It goes on with the slots it began with, though others are chosen now.
    monkeypatch.setitem(memory._SLOTS_OF_USE, "cpu", 1)
    run(config, tmp_path / "killed")
    for name in ("results.jsonl", "masks.npy", "layout.json"):
        whole, again = ((tmp_path / which / name).read_bytes() for which in ("whole", "killed"))
        assert whole == again
    config.finetune.slots = 3  # asked for: last digits may change, and nothing else
    run(config, tmp_path / "otherwise")
    for ours, theirs in zip(lines(tmp_path / "otherwise"), lines(tmp_path / "whole"), strict=True):
        assert ours.get("steps") == theirs.get("steps")
        assert ours.get("selected", {}).get("step") == theirs.get("selected", {}).get("step")
    masks = (np.load(tmp_path / which / "masks.npy") for which in ("otherwise", "whole"))
    np.testing.assert_allclose(*masks, atol=1e-5)


def test_the_same_slots_give_the_same_bytes(config, tmp_path):
    run(config, tmp_path / "one")
    run(config, tmp_path / "two")
    for name in ("results.jsonl", "masks.npy", "settings.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_evaluate_leaves_the_explainer_alone(config, tmp_path):
    config.task = "evaluate"
    run(config, tmp_path / "out")
    assert all(line["steps"] == 1 for line in lines(tmp_path / "out") if "skipped" not in line)


def test_pretraining_resumes_and_serves(config, tmp_path, monkeypatch):
    config.task = "pretrain"
    config.pretrain.batch_size = 2
    config.pretrain.epochs = 3
    config.pretrain.validation = 0.2
    run(config, tmp_path / "whole")
    save, saved = pretraining.write_json, []

    def killed(*arguments: object) -> None:
        saved.append(save(*arguments))
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "parts")
    monkeypatch.undo()
    assert "validation POS" in run(config, tmp_path / "parts")
    for name in ("explainer.safetensors", "last.safetensors"):
        whole, parts = (load_file(tmp_path / run_name / name) for run_name in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        for tensor in whole:
            np.testing.assert_array_equal(whole[tensor], parts[tensor])
    config.task = "finetune"
    config.explainer.checkpoint = str(tmp_path / "whole" / "explainer.safetensors")
    config.finetune.resume = True
    assert "5 explained" in run(config, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "nowhere"}, "no images at nowhere"),
        ({"task": "finetun"}, r"config.task is 'finetun' \(did you mean 'finetune'\?\)"),
        ({"explainee.name": "vit_bass_patch16_224"}, "nearest names are vit_base_patch16_224"),
        (
            {"explainee.name": "resnet18", "explainee.sizes": ConfigDict()},
            r"1 missing|missing: conv1",
        ),
        ({"explainee.sizes.num_classes": 7}, r"head.weight \(5, 16\) instead of \(7, 16\)"),
        ({"explainee.weights": "none.safetensors"}, "no weights at none.safetensors"),
        ({"objective.target": "label"}, "has no label to explain"),
        ({"finetune.resume": True}, "give config.explainer.checkpoint"),
        ({"indices": "a:b"}, "expected start:stop"),
        ({"indices": "100:"}, "leave none of the 6 images"),
        ({"compute_dtype": "float16"}, "compute_dtype 'float16' is not one of float32, bfloat16"),
        ({"attention": "flash"}, "attention 'flash' is not one of xla, cudnn"),
        ({"rivals": ("gradcam",)}, "there are integrated_gradients"),
        ({"finetune.slots": 0}, "config.finetune.slots is 0"),
        (
            {"explainer.weights": "w.safetensors", "explainer.checkpoint": "e.safetensors"},
            "holds all weights: leave config.explainer.weights out",
        ),
        ({"explainer.sizes": ConfigDict({"depth": 2})}, "give config.explainer.name"),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(config, tmp_path, change, message):
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=message) as caught:
        run(config, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_configuration_in_the_same_place(config, tmp_path):
    run(config, tmp_path / "out")
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    config.objective.mask_weight = 7.0
    with pytest.raises(InputError, match=r"objective.mask_weight was 50.0, is 7.0"):
        run(config, tmp_path / "out")
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before


def test_too_many_slots_say_how_many_fit(config, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "bytes_free", lambda mesh: 1_000_000)
    monkeypatch.setattr(memory, "slot_mesh", lambda images: slot_mesh(1))
    config.finetune.slots = 5
    with pytest.raises(InputError, match=r"5 slots need about .* set finetune.slots to \d$"):
        run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    config.finetune.slots = None
    assert "5 explained" in run(config, tmp_path / "out")
    monkeypatch.setattr(memory, "bytes_free", lambda mesh: 1000)
    with pytest.raises(InputError, match=r"1 slots need about .* free: take a smaller network"):
        run(config, tmp_path / "none")


@pytest.mark.parametrize(
    ("free", "refused", "expected"),
    [
        (10**9, 0, (32, 288)),
        (10**9, 17, (16, 288)),  # the compiler of a TPU refuses what cannot fit
        (20_000_000, 0, (16, 288)),
        (3_000_000, 0, (2, 9)),
    ],
)
def test_fewer_slots_before_a_smaller_chunk(monkeypatch, free, refused, expected):
    def needed(*given):
        settings, slots = given[2], given[3]
        return None if 0 < refused <= slots else slots * 1_000_000 + 1000 * settings.chunk

    monkeypatch.setattr(memory, "bytes_needed", needed)
    monkeypatch.setattr(memory, "bytes_free", lambda mesh: free)
    monkeypatch.setattr(memory, "slot_mesh", lambda images: slot_mesh(1))
    monkeypatch.setitem(memory._SLOTS_OF_USE, "cpu", 32)
    monkeypatch.setitem(memory._CHUNKS_OF_USE, "cpu", (288, 36, 9))
    chosen = FinetuneSettings(Objective(), (1e-3,))
    found = memory.lay_out(None, None, chosen, 100, None)
    assert (found.slots, found.settings.chunk) == expected
    with pytest.raises(InputError, match="no images to explain"):
        memory.lay_out(None, None, chosen, 0, None)


def test_what_was_not_planned_may_run_out_of_memory_in_one_line(config, tmp_path, monkeypatch):
    def exhausted(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(explain, "_score", exhausted)
    with pytest.raises(
        InputError, match=r"ran out of memory with 2 slots: set finetune.slots to 1"
    ):
        run(config, tmp_path / "out")


def test_labels_beyond_the_classes(config, tmp_path):
    config.labels = str(tmp_path / "labels.txt")
    Path(config.labels).write_text("0\n1\n2\n3\n4\n5\n")
    with pytest.raises(InputError, match=r"the label of e\.png is 5, but vit has 5 classes"):
        run(config, tmp_path / "out")


def test_explainer_and_explainee_of_different_sizes(config, tmp_path):
    config.explainer.name = "cifar_resnet20"
    config.explainer.sizes = ConfigDict({"depth": 8})
    weights = random_weights(tmp_path / "cnn.safetensors", "cifar_resnet20", depth=8)
    config.explainer.weights = str(weights)
    with pytest.raises(InputError, match=r"\(32, 32\).*\(16, 16\).*same size"):
        run(config, tmp_path / "out")
