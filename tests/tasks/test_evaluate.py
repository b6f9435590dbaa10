"""The task `evaluate`: what a run stored, and maps of any origin."""

from __future__ import annotations

import json
import logging
import pickle
import shutil

import jax
import numpy as np
import pytest
from conftest import random_weights
from original_pickles import result, write_results
from page import Balanced
from PIL import Image
from running import lines, run
from training_pictures import Pictures

from ltx_jax.data.scenes import CLASSES
from ltx_jax.errors import InputError
from ltx_jax.reporting.lines import Lines
from ltx_jax.settings.configuration import read
from ltx_jax.tasks import evaluate
from ltx_jax.tasks.inputs import Row, Work
from ltx_jax.tasks.maps import Map, find_maps
from ltx_jax.tasks.team import sharing

METHODS = {"pltx", "selected", "last", "by_loss"}
CELLS = np.zeros((4, 4), np.float32)
EACH = dict.fromkeys(["a", "b", "bad", "c", "d", "e"], CELLS)
RANDOM = np.random.default_rng(0).random((3, 16, 16), np.float32)


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
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert told["methods"].keys() == METHODS and told["reference"] == "selected"
    assert told["differences"].keys() == METHODS - {"selected"}
    for name in METHODS:
        for score in ("pos", "neg", "srg"):
            assert told["methods"][name][score] == summary[name][score]
    each = lines(tmp_path / "out", "scores.jsonl")
    assert [(one["method"], one["row"]) for one in each] == [
        (name, row) for name in ("pltx", "selected", "last", "by_loss") for row in before
    ]
    for one in each:
        assert one["image"] == before[one["row"]]["image"]
        for name, curve in one["curves"].items():
            assert np.trapezoid(curve, dx=10) == pytest.approx(one[name], abs=2e-3)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| LTX, selected step | " in table and "### Difference from LTX, selected step" in table
    assert (tmp_path / "out" / "table.csv").read_text().count("\n") > 4 * 7
    assert (tmp_path / "out" / "table.tex").read_text().count("\\\\") == 5
    page = (tmp_path / "out" / "evaluation.html").read_text()
    read = Balanced(page)
    assert read.seen.count("article") == 5 and read.seen.count("img") == 5 * 5


@pytest.mark.slow
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


@pytest.mark.slow
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
    (maps / "._cells.npy").touch()  # as macOS leaves them
    config.evaluate.masks = str(maps)
    run(config, tmp_path / "out")
    first = (tmp_path / "out" / "scores" / "signed.jsonl").read_bytes()
    found = lines(tmp_path / "out", "scores/cells.jsonl")
    assert ["skipped" in line for line in found] == [False] * 2 + [True] + [False] * 3
    assert "truncated" in found[2]["skipped"]
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


def test_a_rival_of_images_one_of_which_cannot_be_read(config, tmp_path):
    config.task, config.rivals = "evaluate", ("gradient_x_input",)
    for _ in range(2):
        assert "5 rows scored" in run(config, tmp_path / "out")
    found = lines(tmp_path / "out", "scores/gradient_x_input.jsonl")
    assert ["skipped" in line for line in found] == [False] * 2 + [True] + [False] * 3


def test_scores_of_earlier_maps_that_one_of_several_left_are_not_told(config, tmp_path):
    config.task, config.limit, config.evaluate.masks = "evaluate", 2, str(tmp_path / "maps")
    (tmp_path / "maps").mkdir()
    scores = tmp_path / "out" / "scores" / "mine.jsonl"
    for k, workdir in enumerate(("out", "out", "fresh")):
        values = np.random.default_rng(min(k, 1)).random((2, 4, 4), np.float32)
        np.save(tmp_path / "maps" / "mine.npy", values)
        run(config, tmp_path / workdir)
        if k == 0:  # as it was killed before all was merged
            scores.rename(scores.with_name("mine-0.jsonl"))
    fresh = (tmp_path / "fresh" / "scores" / "mine.jsonl").read_bytes()
    assert scores.read_bytes() == fresh


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


def test_images_that_are_called_alike_have_no_file_each(config, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / f"photos/{name}/1.png")
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "1.npy", np.zeros((4, 4), np.float32))
    config.task, config.images = "evaluate", str(tmp_path / "photos")
    config.evaluate.masks = str(tmp_path / "maps")
    with pytest.raises(InputError, match=r"^cat/1.png and dog/1.png have one file 1 for their"):
        run(config, tmp_path / "out")


def test_nn_explainers_masks(small, tmp_path, caplog):
    config, _ = small
    folder = tmp_path / "voc_vgg16_rise"
    folder.mkdir()
    (tmp_path / "maps").mkdir()
    # A mask that was spread over [0,1] with nothing to spread, and one that was not spread.
    maps = np.stack([RANDOM[0], np.full((16, 16), np.nan, np.float32), 3 * RANDOM[2] - 1])
    np.save(tmp_path / "maps" / "voc_vgg16_rise.npy", maps)
    for i, values in enumerate(maps):
        np.savez_compressed(folder / f"{i}.npz", values)
        (folder / f"{i}.png").touch()
        (folder / f"._{i}.npz").touch()
    for masks, out in ((folder, "one"), (tmp_path / "maps", "two")):
        config.evaluate.masks = str(masks)
        printed = run(config, tmp_path / out)
        assert "1 masks of voc_vgg16_rise are not finite" in printed
    one, two = (lines(tmp_path / out, "scores/voc_vgg16_rise.jsonl") for out in ("one", "two"))
    assert len(one) == 3 and one == two
    # Of a part of the images: how many others there are is said; what was scored of these is left
    # out as well.
    (folder / "1.npz").unlink()
    config.evaluate.masks = str(folder)
    assert "2 rows scored" in run(config, tmp_path / "one")
    assert len(lines(tmp_path / "one", "scores/voc_vgg16_rise.jsonl")) == 3
    told = json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert "not_finite" not in told or not told["not_finite"]
    config.rivals = ("gradient_x_input",)
    printed = run(config, tmp_path / "part")
    assert "1 of 3 rows have no maps and were left out" in printed and "2 rows scored" in printed
    for name in ("voc_vgg16_rise", "gradient_x_input"):
        part = lines(tmp_path / "part", f"scores/{name}.jsonl")
        assert [line["row"] for line in part] == [0, 2]
    assert "has no map for 1 of 3 rows, which are left out: 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("2", b"PK", r"2\.npz is not a whole \.npz file: write it again"),
        ("2", "half", r"2\.npz is not a whole \.npz file: write it again"),
        ("1", {"mask": RANDOM[1]}, r"1\.npz holds no array arr_0: write it by np\.savez"),
        ("0", {"arr_0": np.full((16, 16), "x")}, r"0\.npz holds <U1: expected numbers"),
        ("0", {"arr_0": np.array([None])}, r"0\.npz is not a whole \.npz file"),
        ("1", {"arr_0": CELLS}, r"1\.npz holds .* shape \(4, 4\): .* with 0\.npz \(16, 16\)"),
        ("1", {"arr_0": RANDOM}, r"shape \(3, 16, 16\): expected a map \[g,h\]"),
        ("3", {"arr_0": CELLS}, r"has a map 3 for no image of 3 rows: give its image"),
    ],
)
def test_npz_that_do_not_fit_are_one_line(small, tmp_path, name, content, message):
    config, _ = small
    folder = tmp_path / "masks"
    folder.mkdir()
    for i, values in enumerate(RANDOM):
        np.savez_compressed(folder / f"{i}.npz", values)
    path = folder / f"{name}.npz"
    if content is None:
        path.unlink()
    elif isinstance(content, dict):
        np.savez_compressed(path, **content)
    else:
        path.write_bytes(path.read_bytes()[:400] if content == "half" else content)
    config.evaluate.masks = str(folder)
    with pytest.raises(InputError, match=message) as caught:
        run(config, tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no folder .*: set config.evaluate.masks"),
        ({}, "holds no .npy files"),
        ({"m": np.zeros((5, 4, 4))}, r"array of shape \(5, 4, 4\): expected \[6,g,h\]"),
        ({"m": np.zeros((7, 4, 4))}, r"array of shape \(7, 4, 4\): expected \[6,g,h\]"),
        ({"m": np.zeros((6, 17, 4))}, r"maps of \(17, 4\), and vit sees \(16, 16\): expected at m"),
        ({"m": np.full((6, 4, 4), "x")}, "expected numbers"),
        (dict.fromkeys("abcd", CELLS) | {"bad": CELLS}, r"has no map e for e\.png: add it"),
        (dict.fromkeys("ab", CELLS), r"has no map bad for bad\.jpg \(and 3 more\): add it"),
        (EACH | {"f": CELLS, "g": CELLS}, r"has a map f \(and 1 more\) for no image of 6 rows"),
        (
            EACH | {"e": CELLS[:3]},
            r"e\.npy holds .* shape \(3, 4\): .* with a\.npy \(4, 4\)",
        ),
        (EACH | {"e": CELLS[None]}, r"shape \(1, 4, 4\): expected a map \[g,h\]"),
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


def test_maps_that_are_not_finite_are_named_counted_and_scored_as_constant(
    config, tmp_path, caplog
):
    config.task, config.limit = "evaluate", 2
    maps = tmp_path / "maps"
    maps.mkdir()
    holes, constant = RANDOM[:2].copy(), RANDOM[:2].copy()
    holes[1, 3, 4], constant[1] = np.nan, 0
    np.save(maps / "holes.npy", holes)
    np.save(maps / "plain.npy", constant)
    config.evaluate.masks = str(maps)
    with caplog.at_level(logging.WARNING):
        printed = run(config, tmp_path / "out")
    assert "the mask of b.png by holes is not finite" in caplog.text
    assert "1 masks of holes are not finite, and were scored as constant ones" in printed
    found, plain = (lines(tmp_path / "out", f"scores/{name}.jsonl") for name in ("holes", "plain"))
    assert found[0] == plain[0] | {"crc32": found[0]["crc32"]}
    assert found[1].pop("not_finite") is True
    unlike = {"map": found[1]["map"], "crc32": found[1]["crc32"]}
    assert unlike["map"] != plain[1]["map"] and found[1] == plain[1] | unlike
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (
        told["not_finite"] == {"holes": 1} and told["methods"]["holes"] == told["methods"]["plain"]
    )


@pytest.fixture
def small(config, tmp_path):
    """Three images of the network's size, to be evaluated; and those images in [0,1]."""
    pictures = np.random.default_rng(5).integers(0, 256, (3, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "three.npz", images=pictures, labels=np.array([0, 1, 2]))
    config.task, config.images = "evaluate", str(tmp_path / "three.npz")
    return config, pictures.astype(np.float32) / 255


def test_rivals_by_name_for_both_classes(small, tmp_path):
    config, _ = small
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "random.npy", RANDOM)
    config.evaluate.masks, config.rivals = str(tmp_path / "maps"), ("gradient_x_input",)
    config.evaluate.reference, out = "random", tmp_path / "out"
    found = {}
    for scored_for in ("explained", "label", "both"):
        config.evaluate.scored_for = scored_for
        printed = run(config, out)
        ending = "" if scored_for == "explained" else f"-for-{scored_for}"
        for name in ("random", "gradient_x_input"):
            found[scored_for, name] = lines(out, f"scores/{name}{ending}.jsonl")
    assert "the predicted class:" in printed and "the label:" in printed
    for name in ("random", "gradient_x_input"):
        # The maps are for the predicted class, whatever is scored for.
        for predicted, label, both in zip(
            *(found[which, name] for which in ("explained", "label", "both")), strict=True
        ):
            assert label["class"] == label["row"] and label["map"] == both["map"]
            for one, other in ((both, predicted), (both["for_label"], label)):
                assert one["class"] == other["class"]
                for score in ("pos", "neg", "ins", "del", "adp", "probability"):
                    assert one[score] == pytest.approx(other[score], abs=1e-3)
    told = json.loads((out / "evaluation.json").read_text())
    assert told["differences"].keys() == {"gradient_x_input"}
    assert told["for_label"]["differences"].keys() == {"gradient_x_input"}
    assert np.load(out / "masks" / "gradient_x_input.npy").shape == (3, 16, 16)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_to_the_same_files(small, tmp_path, monkeypatch):
    config, _ = small
    config.rivals = ("gradient_x_input", "smoothgrad")
    monkeypatch.setattr("ltx_jax.engine.memory._SLOTS_OF_USE", {"cpu": 1})
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    run(config, tmp_path / "whole")
    append, written = Lines.append, []

    def killed(*arguments: object) -> None:
        if len(written) == 4:  # of the second rival one row is done
            raise KeyboardInterrupt
        written.append(append(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "killed")
    assert len(lines(tmp_path / "killed", "scores/smoothgrad.jsonl")) == 1
    assert not (tmp_path / "killed" / "evaluation.json").exists()
    run(config, tmp_path / "killed")
    files = sorted(
        path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*")
    )
    assert len(files) == 13
    for path in files:
        assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_what_one_of_several_leaves_another_does(small, tmp_path, monkeypatch):
    config, _ = small
    config.rivals = ("gradient_x_input",)
    monkeypatch.setattr("ltx_jax.engine.memory._SLOTS_OF_USE", {"cpu": 1})
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    run(config, tmp_path / "whole")
    append, written = Lines.append, []

    def killed(*arguments: object) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(append(*arguments))

    shared = tmp_path / "shared"
    with monkeypatch.context() as patch:
        patch.setattr(Lines, "append", killed)
        with pytest.raises(KeyboardInterrupt), sharing(1, 2, shared, 60.0) as team:
            evaluate.run(read(config), shared, team)
    assert len(lines(shared, "scores/gradient_x_input-1.jsonl")) == 1
    with sharing(0, 2, shared, 60.0) as team:
        assert "3 rows scored" in evaluate.run(read(config), shared, team)
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*")]
    assert {path.relative_to(shared) for path in shared.rglob("*.*")} == set(files)
    for path in files:
        assert (shared / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_the_originals_pickles(small, tmp_path):
    config, images = small
    write_results(tmp_path / "objects_pkl", RANDOM, (images - 0.5) / 0.5)
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "same.npy", RANDOM)
    for folder, out in (("objects_pkl", "one"), ("maps", "two")):
        config.evaluate.masks = str(tmp_path / folder)
        run(config, tmp_path / out)
    one, two = (
        lines(tmp_path / out, f"scores/{name}.jsonl")
        for out, name in (("one", "original"), ("two", "same"))
    )
    assert len(one) == 3 and one == two
    config.evaluate.masks, config.indices = str(tmp_path / "objects_pkl"), "1:2"
    run(config, tmp_path / "part")  # of the images; the other results are left alone
    (part,) = lines(tmp_path / "part", "scores/original.jsonl")
    assert part["map"] == one[1]["map"]


class Hostile:
    """Asks to be unpickled by a call."""

    def __reduce__(self):
        return print, ("run",)


WHOLE = result(RANDOM[0], np.zeros((16, 16, 3), np.float32))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"2": None}, r"has no map 2 for 2: add it, or leave the image out with config\.indices"),
        ({"3": WHOLE}, r"has a map 3 for no image of 3 rows: give its image, or choose"),
        ({"0": WHOLE[:-9]}, r"0\.pkl is no whole pickle of arrays"),
        ({"0": pickle.dumps({"auc": Hostile()})}, r"holds builtins\.print, which was not run"),
        (
            {"0": result(CELLS, np.zeros((4, 4, 3), np.float32))},
            r"holds a mask of \(4, 4\) pixels, and vit sees \(16, 16\): give the network",
        ),
        (
            {"0": result(RANDOM[0], RANDOM[0][..., None].repeat(3, -1))},
            r"0\.pkl shows another image than 0 \(correlation -?0\.\d\d\): give the images",
        ),
    ],
)
def test_pickles_that_do_not_fit_are_one_line(small, tmp_path, capsys, files, message):
    config, images = small
    folder = write_results(tmp_path / "objects_pkl", RANDOM, images)
    for name, content in files.items():
        path = folder / f"{name}.pkl"
        path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
    config.evaluate.masks = str(folder)
    with pytest.raises(InputError, match=message) as caught:
        run(config, tmp_path / "out")
    assert "\n" not in str(caught.value) and "run" not in capsys.readouterr().out


def test_masks_of_another_run_are_refused(config, tmp_path):
    run(config, tmp_path / "run")
    config.task, config.evaluate.masks = "evaluate", str(tmp_path / "run")
    config.indices = "1:"
    with pytest.raises(InputError, match=r"row 0 is a\.png in .*run, and b\.png here: give the im"):
        run(config, tmp_path / "out")
    config.indices, config.evaluate.reference = None, "nobody"
    with pytest.raises(
        InputError, match=r"reference is 'nobody': the methods are pltx, selected, l"
    ):
        run(config, tmp_path / "out")
    config.evaluate.reference, config.evaluate.scored_for = None, "label"
    with pytest.raises(InputError, match=r"a\.png has no label to score for: give config\.labels"):
        run(config, tmp_path / "out")
    config.evaluate.scored_for, config.rivals = "explained", ("nothing",)
    with pytest.raises(InputError, match="unknown rival 'nothing'"):
        run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    config.evaluate.masks, config.rivals = str(tmp_path / "other"), ()
    with pytest.raises(InputError, match=r"run holds a run and its own scores: evaluate the mask"):
        run(config, tmp_path / "run")
    config.evaluate.masks = str(tmp_path / "run")
    masks = tmp_path / "run" / "masks" / "rival.npy"
    np.save(masks, np.full((6, 4, 4), np.nan, np.float32))  # as a run leaves it that was killed
    with pytest.raises(
        InputError, match=r"rival\.npy has no map of row 0, a\.png \(and 4 more\): let"
    ):
        run(config, tmp_path / "out")


def test_an_image_that_is_gone_is_left_out_of_the_page(explainee, tmp_path, caplog):
    pictures = Pictures(unreadable=(1,))
    rows = [Row(i, pictures.names[i], None, None) for i in range(3)]
    work = Work(explainee, pictures, explainee.preprocessing("squash"), rows, ())
    scored = [{"row": row, "class": 0, "pos": 1.0} for row in range(3)]
    shown = [*evaluate.same_images(work, {"m": lambda row: Map(CELLS)}, {"m": scored}, 3)]
    assert [one.image for one in shown] == ["picture 0", "picture 2"]
    assert caplog.messages == ["no picture of picture 1: it is cut off"]
    # Of what it showed nothing can be said.
    folder = write_results(tmp_path / "objects_pkl", RANDOM, np.zeros((3, 16, 16, 3), np.float32))
    original = find_maps(folder, work, cut=True).methods["original"]
    np.testing.assert_array_equal(original(1).mask, RANDOM[1])


@pytest.mark.slow
def test_an_unfinished_run_is_told(small, tmp_path, caplog):
    config, _ = small
    whole, half = tmp_path / "whole", tmp_path / "half"
    config.task, config.finetune.steps = "explain", 1
    run(config, whole)
    shutil.copytree(whole, half)
    results = (half / "results.jsonl").read_text().splitlines(keepends=True)
    (half / "results.jsonl").write_text("".join(results[:2]))
    config.task = "evaluate"
    assert "left out" not in run(config, whole)
    assert "left_out" not in json.loads((whole / "evaluation.json").read_text())
    told = "1 of 3 rows have no maps and were left out: where a run makes these, let it go on"
    printed = run(config, half)
    assert told in printed and "2 rows scored" in printed
    page = (half / "evaluation.html").read_text()
    assert told in page and "· 2 rows scored" in page
    assert json.loads((half / "evaluation.json").read_text())["left_out"] == 1
    assert "has results of 2 of 3 rows, and the others are left out: let the run" in caplog.text
    # Where the whole run was evaluated before.
    config.evaluate.merged, out = True, tmp_path / "out"
    for folder, rows in ((whole, 3), (half, 2)):
        config.evaluate.masks = str(folder)
        assert f"{rows} rows scored" in run(config, out)
    scored = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert {line["row"] for line in scored} == {0, 1}


@pytest.mark.slow
def test_a_rivals_maps_are_of_the_class_that_is_asked_for(small, tmp_path, monkeypatch):
    config, _ = small
    config.finetune.steps, rival = 1, "gradient_x_input"
    for target in ("label", "predicted"):
        config.task, config.target = "explain", target
        run(config, tmp_path / target)
    config.task, config.rivals, config.target = "evaluate", (rival,), "predicted"
    # Scored for another class alone: the maps are there, and are not made again.
    config.evaluate.scored_for = "label"
    run(config, tmp_path / "predicted")
    maps = np.load(tmp_path / "predicted" / "masks" / f"{rival}.npy")
    told = lines(tmp_path / "predicted", f"scores/{rival}-for-label.jsonl")
    assert [(one["class"], one.get("explains")) for one in told] == [(0, None), (1, 0), (2, 0)]
    config.evaluate.scored_for = "explained"
    with monkeypatch.context() as none:
        none.setattr("ltx_jax.tasks.rivals.compute", None)
        run(config, tmp_path / "predicted")
        config.rivals = ()
        run(config, tmp_path / "predicted")
        config.rivals = (rival,)
    # Maps for labels, left by an earlier evaluation, are none for the predicted classes.
    for folder in ("masks", "scores"):
        for path in (tmp_path / "predicted" / folder).glob(f"{rival}*"):
            path.unlink()
    for target in ("label", "predicted"):
        config.evaluate.masks = str(tmp_path / target)
        run(config, tmp_path / "out")
        explained = lines(tmp_path / target, "results.jsonl")
        scored = lines(tmp_path / "out", f"scores/{rival}.jsonl")
        assert [one["class"] for one in scored] == [one["class"] for one in explained]
    assert [one["class"] for one in explained] != [0, 1, 2]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "masks" / f"{rival}.npy"), maps)
