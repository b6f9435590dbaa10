"""Two runs, and a run and the original's results, compared: differences worked out by hand."""

import json
import os
import pickle

import compare_with_pytorch as compare
import numpy as np
import pytest
from original_pickles import write_results

from ltx_jax.errors import InputError
from ltx_jax.loading.original_results import result_files
from ltx_jax.reporting.store import ResultStore

OWN = ("selected", "last")  # the order of the records, not of the alphabet


def run(
    directory, neg, images=("a", "b", "c"), classes=(0, 1, 2), steps=(1, 2, 3), mask=0.25, own=OWN
):
    """A work directory of three images; one is skipped where it has no score."""
    store = ResultStore.open(directory, {}, 3)
    for name in own:
        store.hold(name, (2, 2))
    for row, (image, target, score, taken) in enumerate(
        zip(images, classes, neg, steps, strict=True)
    ):
        if score is None:
            store.skip(row, image, "unreadable")
            continue
        record = {"row": row, "image": image, "class": target, "steps": taken}
        record |= {name: {"pos": 50.0, "neg": score} for name in own}
        masks = dict.fromkeys(own, np.full((2, 2), mask, np.float32))
        store.add({row: (record, masks)})
    return directory


def rival(directory, iou, name="rival", side=4):
    """A rival's masks and scores, added to a run."""
    store = ResultStore.find(directory)
    store.hold(name, (side, side), raw=(side, side))
    mask = np.zeros((side, side), np.float32)
    store.keep(name, dict.fromkeys(range(3), (mask, mask)))
    lines = {row: {"row": row, "class": row, "iou": value} for row, value in enumerate(iou)}
    store.scored(name).append(lines)
    return directory


def told(one, two):
    return compare.comparison(*compare.paired(one, two)).split("\n")


def test_paired_differences(tmp_path):
    one = run(tmp_path / "one", (10.0, 20.0, 30.0))
    two = run(tmp_path / "two", (11.0, 24.0, 31.0), steps=(1, 2, 9), mask=0.75)
    head, *rows, last = told(one, two)
    assert head.split()[:2] == ["POS", "NEG"]
    # Differences 1, 4 and 1: mean 2, standard deviation √3, so its error is √3 / √3.
    for row, name in zip(rows, OWN, strict=True):
        assert row.split() == [
            *(name, "50.00", "+0.00", "±", "0.00", "20.00", "+2.00", "±", "1.00"),
            *("5.0e-01,", "5.0e-01"),
        ]
    assert last == "3 explanations, 2 of them with the same number of steps"


def test_methods_and_scores_that_both_have(tmp_path):
    one = rival(run(tmp_path / "one", (10.0, 20.0, 30.0)), (10.0, None, 30.0))
    two = rival(run(tmp_path / "two", (10.0, 20.0, 30.0), own=("selected",)), (13.0, 20.0, 35.0))
    rival(two, (1.0, 2.0, 3.0), "another")
    head, *rows, _ = told(one, two)
    assert head.split()[:3] == ["POS", "NEG", "IoU"]
    assert [row.split()[0] for row in rows] == ["selected", "rival"]
    # Differences 3 and 5: mean 4, standard deviation √2, so its error is √2 / √2.
    scores = ("–", "–", "20.00", "+4.00", "±", "1.00")
    assert rows[1].split()[1:] == [*scores, "0.0e+00,", "0.0e+00"]
    assert rows[0].split()[9] == "–"


def test_pooled_scores_are_those_of_each_image():
    pooled = [
        {"pixel_accuracy": [3.0, 4.0]},
        {"pixel_accuracy": None},
        {"pixel_accuracy": [1.0, 2.0]},
    ]
    np.testing.assert_allclose(compare._column(pooled, "pixel_accuracy"), [75, np.nan, 50])
    np.testing.assert_allclose(compare._column([{}, {"iou": 2.0}], "iou"), [np.nan, 2])


def test_only_what_both_explain_is_compared(tmp_path):
    one = run(tmp_path / "one", (10.0, 20.0, 30.0))
    two = run(tmp_path / "two", (10.0, 20.0, 99.0), classes=(0, 1, 7))
    table = "\n".join(told(one, two))
    assert "+0.00" in table and "99" not in table
    assert table.endswith("2 explanations, 2 of them with the same number of steps")
    skipping = run(tmp_path / "skipping", (10.0, None, None))
    with pytest.raises(InputError, match="share 1 explanations"):
        compare.paired(one, skipping)


def test_what_cannot_be_compared(tmp_path):
    one = run(tmp_path / "one", (10.0, 20.0, 30.0))
    two = run(tmp_path / "two", (10.0, 20.0, 30.0), images=("a", "x", "c"))
    with pytest.raises(InputError, match=r"row 1 is b in .* and x in "):
        compare.paired(one, two)
    with pytest.raises(InputError, match="holds no run"):
        compare.paired(one, tmp_path / "nowhere")
    rival(one, (1.0, 2.0, 3.0))
    other = rival(run(tmp_path / "other", (10.0, 20.0, 30.0)), (1.0, 2.0, 3.0), side=8)
    with pytest.raises(InputError, match=r"masks called rival are \(4, 4\) in .* and \(8, 8\) in"):
        compare.paired(one, other)


# --- Beside the original's results ----------------------------------------------------------------

RISING = np.arange(4, dtype=np.float32).reshape(2, 2) / 4


def original(folder, masks=None, start=0):
    """Results of the images a, b, c (or 0, 1, 2), selected with POS 10, 11 and 12 at steps 0 to
    2, written 2.5 s apart."""
    masks = np.stack([RISING, 1 - RISING, RISING**2]) if masks is None else masks
    write_results(folder, masks, np.zeros((3, 2, 2, 3), np.float32), start)
    for i in range(3):
        os.utime(folder / f"{start + i}.pkl", (1000 + 2.5 * i,) * 2)
    return folder


def ours(directory, pos=(11.0, 11.0, 14.0), **more):
    """A run whose masks rise from left to right, top to bottom."""
    store = ResultStore.open(directory, {"finetune.optimize": "pos"}, 3)
    store.hold("selected", (2, 2))
    for row, value in enumerate(pos):
        record = {"row": row, "image": "abc"[row], "class": row}
        record["selected"] = {"step": 3, "pos": value, "neg": 50.0}
        store.add({row: (record | more, {"selected": RISING})})
    (directory / "summary.json").write_text(json.dumps({"images_per_second": 2.0}))
    return directory


def test_a_run_beside_the_originals_results(tmp_path):
    files = result_files(original(tmp_path / "objects_pkl"))
    told = compare.beside_original(ours(tmp_path / "run"), files, None, None).split("\n")
    assert told[0].split() == ["image", "POS,", "added", "Pearson", "Spearman", "steps"]
    assert told[1].split() == ["a", "11.00", "-1.00", "1.000", "1.000", "3,", "0"]
    assert told[2].split() == ["b", "11.00", "+0.00", "-1.000", "-1.000", "3,", "1"]
    # Of 0, 1, 2, 3 and their squares: covariance 5 · 3, variances 5 and 49.
    squares = f"{15 / (5 * 49) ** 0.5:.3f}"
    assert told[3].split() == ["c", "14.00", "-2.00", squares, "1.000", "3,", "2"]
    # Differences -1, 0 and -2: mean -1, standard deviation 1, so its error is 1 / √3.
    pearson = (1 - 1 + 15 / (5 * 49) ** 0.5) / 3
    assert told[4].split() == ["mean", "12.00", "-1.00", "±", "0.58", f"{pearson:.3f}", "0.333"]
    assert told[5] == (
        "3 images; an image takes ours 0.500 s, the original's 2.500 s, 5.0 times as long"
    )


def test_the_originals_masks_as_they_were_evaluated(tmp_path):
    files = result_files(original(tmp_path / "objects_pkl"))
    run = ours(tmp_path / "run")
    lines = [
        {"method": "original", "image": "abc"[row], "class": target, "pos": 12.0, "neg": neg}
        for row, target, neg in ((0, 0, 51.0), (1, 1, 53.0), (2, 7, 99.0))  # of another class
    ]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    told = compare.beside_original(run, files, tmp_path / "out", None).split("\n")
    rows = {line.split()[0]: line.split()[1:] for line in told[5:7]}
    assert rows == {
        "POS": ["11.00", "+1.00", "±", "0.00"],
        "NEG": ["50.00", "+2.00", "±", "1.00"],
    }
    for damaged in ("{", "", '{"method": "last", "image": "a", "class": 0}\n', "3\n"):
        (tmp_path / "out" / "scores.jsonl").write_text(damaged)
        with pytest.raises(InputError, match="holds no scores of the original's masks: run"):
            compare.beside_original(run, files, tmp_path / "out", None)


def test_what_is_not_known_is_not_told(tmp_path):
    files = result_files(original(tmp_path / "objects_pkl", np.ones((3, 2, 2), np.float32)))
    for i, path in files.items():
        os.utime(path, (1000 + 0.002 * i,) * 2)  # copied together
    run = ours(tmp_path / "run")
    told = compare.beside_original(run, files, None, None).split("\n")
    assert told[1].split()[3:5] == told[4].split()[5:7] == ["nan", "nan"]
    assert told[-1].endswith("ours 0.500 s, the original's –")
    assert "0.200 s, 0.4 times as long" in compare.beside_original(run, files, None, 0.2)


def test_images_that_the_original_has_not(tmp_path):
    run = ours(tmp_path / "run")
    some = result_files(original(tmp_path / "some", start=1))
    assert "2 images;" in compare.beside_original(run, some, None, None)
    none = result_files(original(tmp_path / "none", start=7))
    with pytest.raises(InputError, match=r"explains none of the images of .*none: give a run"):
        compare.beside_original(run, none, None, None)
    (tmp_path / "some" / "1.pkl").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match=r"1\.pkl is no whole pickle of arrays \(it holds b"):
        compare.beside_original(run, some, None, None)


@pytest.mark.parametrize("pickles", [True, False])
def test_the_command_line(tmp_path, monkeypatch, capsys, pickles):
    one = ours(tmp_path / "run")
    other = original(tmp_path / "objects_pkl") if pickles else ours(tmp_path / "other")
    monkeypatch.setattr("sys.argv", ["compare_with_pytorch", str(one), str(other)])
    assert compare.main() == 0
    assert ("3 images;" if pickles else "3 explanations") in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["compare_with_pytorch", str(tmp_path), str(other)])
    assert compare.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("compare_with_pytorch: ") and error.count("\n") == 1
