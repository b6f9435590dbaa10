"""Two runs compared, with differences worked out by hand."""

import compare
import numpy as np
import pytest

from ltx_jax.errors import InputError
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
