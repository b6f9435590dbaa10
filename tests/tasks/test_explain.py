"""The task `explain` as a user runs it: results, restart, rivals, and each kind of bad input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_weights
from ml_collections import ConfigDict
from PIL import Image
from running import lines, run

from ltx_jax.engine import explain as engine
from ltx_jax.engine import memory
from ltx_jax.engine.recipe import make_recipe
from ltx_jax.engine.sharding import slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.reporting.store import ResultStore
from ltx_jax.settings.sections import LTX
from ltx_jax.tasks import explain as explaining
from ltx_jax.tasks import rivals

FILES = {
    "settings.json",
    "layout.json",
    "results.jsonl",
    "masks",
    "summary.json",
    "report.html",
    "overlays",
}
METHODS = ("pltx", "selected", "last", "by_loss")


@pytest.mark.slow
def test_the_rate_is_that_of_all_processes(config, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(explaining, "time", SimpleNamespace(monotonic=lambda: clock.now))
    wait = explaining.await_rows

    def the_others_take_ten_seconds(*given):
        wait(*given)
        clock.now += 10

    monkeypatch.setattr(explaining, "await_rows", the_others_take_ten_seconds)
    run(config, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["images_per_second"] == 0.6  # six rows, one of which is skipped


def masks(workdir: Path, name: str = "selected") -> np.ndarray:
    return np.load(workdir / "masks" / f"{name}.npy")


@pytest.fixture(autouse=True)
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer devices than images, so that slots are refilled."""
    monkeypatch.setattr(memory, "slot_mesh", lambda images: slot_mesh(min(images, 2)))


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
    for name in METHODS:
        stored = masks(tmp_path / "out", name)
        assert stored.shape == (6, 4, 4) and stored.dtype == np.float32
        assert np.isnan(stored).all((1, 2)).tolist() == [False, False, True, *[False] * 3]
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


@pytest.mark.slow
def test_an_image_whose_logits_are_no_numbers_is_skipped(config, tmp_path, monkeypatch):
    Image.new("RGB", (20, 24), "white").save(Path(config.images) / "bright.png")

    def fails_where_bright(params, images):
        bright = images.mean((1, 2, 3)) > 0.9
        return jnp.where(bright[:, None], jnp.nan, network(params, images))

    def opened(settings):
        nonlocal network
        work = open_work(settings)
        network = work.explainee.apply
        return work._replace(explainee=replace(work.explainee, apply=fails_where_bright))

    network, open_work = None, explaining.open_work
    monkeypatch.setattr(explaining, "open_work", opened)
    assert "5 explained, 2 skipped" in run(config, tmp_path / "out")
    bright = next(line for line in lines(tmp_path / "out") if line["image"] == "bright.png")
    assert "logits of vit for it are not finite" in bright["skipped"]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_results(config, tmp_path, monkeypatch):
    config.finetune.slots = None
    run(config, tmp_path / "whole")
    add, added = ResultStore.add, []

    def killed(*arguments: object) -> None:
        if added:
            raise KeyboardInterrupt
        added.append(add(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "killed")
    assert 0 < len(lines(tmp_path / "killed")) < 6
    shutil.copytree(tmp_path / "killed", tmp_path / "otherwise")
    # It goes on with the slots it began with, though others are chosen now.
    monkeypatch.setitem(memory._SLOTS_OF_USE, "cpu", 1)
    run(config, tmp_path / "killed")
    for name in ("results.jsonl", "layout.json", *(f"masks/{mask}.npy" for mask in METHODS)):
        whole, again = ((tmp_path / which / name).read_bytes() for which in ("whole", "killed"))
        assert whole == again
    config.finetune.slots = 3  # asked for: last digits may change, and nothing else
    run(config, tmp_path / "otherwise")
    for ours, theirs in zip(lines(tmp_path / "otherwise"), lines(tmp_path / "whole"), strict=True):
        assert ours.get("steps") == theirs.get("steps")
        assert ours.get("selected", {}).get("step") == theirs.get("selected", {}).get("step")
    for name in METHODS:
        both = (masks(tmp_path / which, name) for which in ("otherwise", "whole"))
        np.testing.assert_allclose(*both, atol=1e-5)


def test_the_same_slots_give_the_same_bytes(config, tmp_path):
    run(config, tmp_path / "one")
    run(config, tmp_path / "two")
    for name in ("results.jsonl", "masks/last.npy", "settings.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_a_run_rests_on_may_not_change_under_it(config, tmp_path):
    run(config, tmp_path / "out")
    folder = Path(config.images)
    photograph = sorted(folder.glob("*.png"))[0]
    whole = photograph.read_bytes()
    photograph.write_bytes(sorted(folder.glob("*.png"))[1].read_bytes())
    with pytest.raises(InputError, match=r"images and labels \(sha256 of contents\) was"):
        run(config, tmp_path / "out")
    photograph.write_bytes(whole)
    run(config, tmp_path / "out")
    (tmp_path / "labels.txt").write_text("\n".join("0" for _ in folder.iterdir()))
    config.labels = str(tmp_path / "labels.txt")
    run(config, tmp_path / "labelled")
    (tmp_path / "labels.txt").write_text("\n".join("1" for _ in folder.iterdir()))
    with pytest.raises(InputError, match=r"images and labels \(sha256 of contents\) was"):
        run(config, tmp_path / "labelled")


def test_no_steps_leave_the_explainer_alone(config, tmp_path):
    config.finetune.steps = 0
    run(config, tmp_path / "out")
    assert all(line["steps"] == 1 for line in lines(tmp_path / "out") if "skipped" not in line)
    # One mask is no four.
    assert [path.stem for path in (tmp_path / "out" / "masks").iterdir()] == ["pltx"]
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "pltx" in found and not {"selected", "last", "by_loss"} & found.keys()
    config.finetune.steps = 2
    run(config, tmp_path / "longer")
    np.testing.assert_array_equal(
        masks(tmp_path / "out", "pltx"), masks(tmp_path / "longer", "pltx")
    )
    for one, other in zip(lines(tmp_path / "out"), lines(tmp_path / "longer"), strict=True):
        assert one.get("pltx") == other.get("pltx")


@pytest.mark.slow
def test_a_rival_is_added_to_a_finished_run(config, tmp_path, monkeypatch):
    config.rivals = ("integrated_gradients",)
    run(config, tmp_path / "out")
    first = (tmp_path / "out" / "results.jsonl").read_bytes()
    computed, compute = [], rivals.compute

    def counted(explainee, name, images, *given):
        computed.append((name, len(images)))
        return compute(explainee, name, images, *given)

    def explained(*_: object, **__: object) -> None:
        raise AssertionError("all is explained")

    monkeypatch.setattr(rivals, "compute", counted)
    monkeypatch.setattr("ltx_jax.tasks.explain.explain", explained)
    config.rivals = ("integrated_gradients", "gradient_x_input")
    printed = run(config, tmp_path / "out")
    assert {name for name, _ in computed} == {"gradient_x_input"}
    assert sum(count for _, count in computed) == 5
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == first
    assert "integrated_gradients" in printed and "gradient_x_input" in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["rivals"]) == {"integrated_gradients", "gradient_x_input"}
    assert summary["images_per_second"] > 0  # what the run cost is still known
    for name in summary["rivals"]:
        mask, raw = (masks(tmp_path / "out", name + kind) for kind in ("", ".raw"))
        assert mask.shape == raw.shape == (6, 16, 16)
        done = ~np.isnan(mask).all((1, 2))
        assert done.sum() == 5
        np.testing.assert_allclose(mask[done].max((1, 2)), 1, rtol=1e-6)
        low, high = raw[done].min((1, 2), keepdims=True), raw[done].max((1, 2), keepdims=True)
        np.testing.assert_allclose(mask[done], (raw[done] - low) / (high - low), rtol=1e-6)
    computed.clear()
    run(config, tmp_path / "out")
    assert not computed


@pytest.mark.slow
def test_a_killed_rival_goes_on(config, tmp_path, monkeypatch):
    config.rivals = ("grad_cam",)  # whose maps are of cells
    monkeypatch.setitem(memory._SLOTS_OF_USE, "cpu", 1)
    run(config, tmp_path / "whole")
    compute, computed = rivals.compute, []

    def killed(explainee, name, images, *given):
        computed.append(len(images))
        if len(computed) == 2:
            raise KeyboardInterrupt
        return compute(explainee, name, images, *given)

    with monkeypatch.context() as patch:
        patch.setattr(rivals, "compute", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "killed")
    run(config, tmp_path / "killed")
    for name in ("scores/grad_cam.jsonl", "masks/grad_cam.npy"):
        whole, again = ((tmp_path / which / name).read_bytes() for which in ("whole", "killed"))
        assert whole == again
    assert masks(tmp_path / "whole", "grad_cam").shape == (6, 4, 4)


@pytest.mark.slow
def test_further_scores(config, tmp_path):
    config.scores = ("rise_deletion",)
    config.finetune.steps = 2
    run(config, tmp_path / "out")
    found = [line["selected"] for line in lines(tmp_path / "out") if "skipped" not in line]
    assert all(0 < scores["rise_deletion"] < 100 for scores in found)
    assert all("rise_insertion" not in scores and "tied" in scores for scores in found)


@pytest.mark.parametrize(
    "damaged",
    [
        [],
        {"cpu": 2},
        {"cpu": {"slots": 2}},
        {"cpu": {"slots": "a", "chunk": None}},
        {"cpu": {"slots": 0, "chunk": None}},
        {"cpu": {"slots": True, "chunk": None}},
        {"cpu": {"slots": 2, "chunk": 1.5}},
        {"another": {"slots": 2, "chunk": 9, "more": 1}},
    ],
)
def test_a_layout_that_is_none_is_refused(config, tmp_path, damaged):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "layout.json").write_text(json.dumps(damaged))
    with pytest.raises(InputError, match=r"layout\.json is damaged: take it away"):
        run(config, tmp_path / "out")


def test_label_scores_are_those_of_an_explanation_of_the_label(config, tmp_path):
    """Explained for the predicted class and scored for the label as well: the pretrained mask does
    not depend on the class, so its label scores are its scores where the label is explained."""
    config.labels = str(tmp_path / "labels.txt")
    Path(config.labels).write_text("0\n1\n2\n3\n4\n0\n")
    config.finetune.steps = 0
    run(config, tmp_path / "predicted")
    config.target = "label"
    run(config, tmp_path / "label")
    compared = 0
    for ours, theirs in zip(lines(tmp_path / "predicted"), lines(tmp_path / "label"), strict=True):
        if "for_label" in ours:
            expected = {k: v for k, v in theirs["pltx"].items() if k in ours["for_label"]["pltx"]}
            assert {"pos", "neg", "ins", "del", "adp", "pic"} <= expected.keys()
            assert ours["for_label"]["pltx"] == pytest.approx(expected, rel=1e-4, abs=1e-3)
            assert ours["for_label"]["pltx"] != {k: ours["pltx"][k] for k in expected}
            compared += 1
    assert compared


@pytest.mark.slow
def test_scores_left_out_while_finetuning_are_made_up_for(config, tmp_path):
    """Lazy scoring leaves gaps in the trace, never in the scores of the masks that are kept."""
    config.finetune.stop_below = -1.0
    run(config, tmp_path / "lazy")
    config.finetune.lazy_scoring = False
    run(config, tmp_path / "whole")
    gaps = 0
    for ours, theirs in zip(lines(tmp_path / "lazy"), lines(tmp_path / "whole"), strict=True):
        if "skipped" in ours:
            continue
        gaps += sum(score is None for score in ours["trace"]["score"])
        for name in METHODS:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-3)
    assert gaps


def test_a_directory_of_the_old_form_is_refused(config, tmp_path):
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "masks.npy", np.zeros((6, 4, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"older version, all masks in masks\.npy: "):
        run(config, tmp_path / "out")


def test_other_kinds_of_devices_keep_their_layout(config, tmp_path):
    (tmp_path / "out").mkdir()
    other = {"NVIDIA H200": {"slots": 32, "chunk": 288}}
    (tmp_path / "out" / "layout.json").write_text(json.dumps(other))
    run(config, tmp_path / "out")
    layouts = json.loads((tmp_path / "out" / "layout.json").read_text())
    assert layouts == other | {"cpu": {"slots": 2, "chunk": 9}}


def test_a_layout_that_another_process_has_noted_is_everyones(tmp_path):
    def never() -> None:
        raise AssertionError("there is nothing to choose")

    recipe = make_recipe(LTX.finetune, LTX.objective).with_chunk(9)
    theirs, ours = (memory.Layout(recipe, slots, slot_mesh(1)) for slots in (1, 2))
    assert explaining.keep_layout(theirs, never, tmp_path) is theirs
    assert explaining.keep_layout(theirs, never, tmp_path) is theirs
    assert explaining.keep_layout(ours, lambda: theirs, tmp_path) is theirs
    noted = json.loads((tmp_path / "layout.json").read_text())
    assert noted == {"cpu": {"slots": 1, "chunk": 9}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "nowhere"}, "no images at nowhere"),
        ({"task": "explan"}, r"config.task is 'explan' \(did you mean 'explain'\?\)"),
        ({"task": "finetune"}, "is called explain now"),
        ({"explainee.name": "vit_bass_patch16_224"}, "nearest names are vit_base_patch16_224"),
        (
            {"explainee.name": "resnet18", "explainee.sizes": ConfigDict()},
            r"1 missing|missing: conv1",
        ),
        ({"explainee.sizes.num_classes": 7}, r"head.weight \(5, 16\) instead of \(7, 16\)"),
        ({"explainee.weights": "none.safetensors"}, "no weights at none.safetensors"),
        ({"target": "label"}, "has no label to explain"),
        ({"label_rows": "::2"}, "has no label to explain"),
        ({"finetune.resume": True}, "give config.explainer.checkpoint"),
        ({"indices": "a:b"}, "expected start:stop"),
        ({"indices": "100:"}, "leave none of the 6 images"),
        ({"compute_dtype": "float16"}, "config.compute_dtype is 'float16'.*: it is one of float32"),
        ({"attention": "flash"}, "config.attention is 'flash': it is one of xla, cudnn"),
        ({"rivals": ("gradcam",)}, "unknown rival 'gradcam': there are .*, grad_cam, "),
        ({"rivals": ("grad_cam", "full_grad")}, "vit does not tell what its biases add"),
        ({"scores": ("posneg",)}, "unknown score 'posneg'"),
        ({"finetune.slots": 0}, "config.finetune.slots is 0: it must be at least 1"),
        ({"finetune.learning_rate": float("nan")}, "config.finetune.learning_rate is nan"),
        ({"objective.mask_weight": -1.0}, "config.objective.mask_weight is -1.0"),
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


@pytest.mark.slow
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
def test_fewer_slots_before_a_smaller_chunk(
    monkeypatch, explainee, explainer, free, refused, expected
):
    def needed(*given):
        recipe, slots = given[2], given[3]
        return None if 0 < refused <= slots else slots * 1_000_000 + 1000 * recipe.method.chunk

    monkeypatch.setattr(memory, "bytes_needed", needed)
    monkeypatch.setattr(memory, "bytes_free", lambda mesh: free)
    monkeypatch.setattr(memory, "slot_mesh", lambda images: slot_mesh(1))
    monkeypatch.setitem(memory._SLOTS_OF_USE, "cpu", 32)
    monkeypatch.setitem(memory._CHUNKS_OF_USE, "cpu", (288, 36, 9))
    recipe = make_recipe(LTX.finetune, LTX.objective)
    found = memory.lay_out(explainee, explainer, recipe, 100, None)
    assert (found.slots, found.recipe.method.chunk) == expected
    with pytest.raises(InputError, match="no images to explain"):
        memory.lay_out(explainee, explainer, recipe, 0, None)


def test_what_was_not_planned_may_run_out_of_memory_in_one_line(config, tmp_path, monkeypatch):
    def exhausted(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr(engine, "_score", exhausted)
    with pytest.raises(
        InputError, match=r"ran out of memory with 2 slots: set finetune.slots to 1"
    ):
        run(config, tmp_path / "out")


def test_a_batch_that_is_too_large_is_told_what_is_of_use(config, tmp_path, monkeypatch):
    def exhausted(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    monkeypatch.setattr("ltx_jax.tasks.rivals._on_devices", exhausted)
    config.task, config.rivals = "evaluate", ("gradient_x_input",)
    with pytest.raises(InputError, match=r"memory with \d images: take a device with more, or, w"):
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
    with pytest.raises(InputError, match=r"\(32, 32, 3\).*\(16, 16, 3\).*same size"):
        run(config, tmp_path / "out")
