"""Two runs compared, with differences worked out by hand."""

import json

import compare
import numpy as np
import pytest

from ltx_jax.engine.explain import SCORES
from ltx_jax.engine.finetune import MASKS
from ltx_jax.errors import InputError


def run(directory, neg, images=("a", "b", "c"), classes=(0, 1, 2), steps=(1, 2, 3), mask=0.25):
    """A work directory of three images, the last of them skipped where it has no score."""
    directory.mkdir()
    lines = []
    for row, (image, target, score, taken) in enumerate(
        zip(images, classes, neg, steps, strict=True)
    ):
        record = {"row": row, "image": image, "class": target, "steps": taken}
        for name in MASKS:
            record[name] = dict.fromkeys(SCORES, 50.0) | {"neg": score}
        skipped = {"row": row, "image": image, "skipped": "unreadable"}
        lines.append(json.dumps(skipped if score is None else record) + "\n")
    (directory / "results.jsonl").write_text("".join(lines))
    np.save(directory / "masks.npy", np.full((3, 4, 2, 2), mask, np.float32))
    return directory


def test_paired_differences(tmp_path):
    one = run(tmp_path / "one", (10.0, 20.0, 30.0))
    two = run(tmp_path / "two", (11.0, 24.0, 31.0), steps=(1, 2, 9), mask=0.75)
    head, *rows, last = compare.comparison(*compare.paired(one, two)).split("\n")
    assert head.split()[:2] == ["POS", "NEG"]
    # Differences 1, 4 and 1: mean 2, standard deviation √3, so its error is √3 / √3.
    for row, name in zip(rows, MASKS, strict=True):
        assert row.split()[:9] == [
            name,
            "50.00",
            "+0.00",
            "±",
            "0.00",
            "20.00",
            "+2.00",
            "±",
            "1.00",
        ]
        assert row.split()[-2:] == ["5.0e-01,", "5.0e-01"]
    assert last == "3 explanations, 2 of them with the same number of steps"


def test_only_what_both_explain_is_compared(tmp_path):
    one = run(tmp_path / "one", (10.0, 20.0, 30.0))
    two = run(tmp_path / "two", (10.0, 20.0, 99.0), classes=(0, 1, 7))
    table = compare.comparison(*compare.paired(one, two))
    assert "+0.00" in table and "99" not in table
    assert table.endswith("2 explanations, 2 of them with the same number of steps")
    skipping = run(tmp_path / "skipping", (10.0, None, None))
    with pytest.raises(InputError, match="share 1 explanations"):
        compare.paired(one, skipping)


def test_other_images_and_no_run(tmp_path):
    one = run(tmp_path / "one", (10.0, 20.0, 30.0))
    two = run(tmp_path / "two", (10.0, 20.0, 30.0), images=("a", "x", "c"))
    with pytest.raises(InputError, match=r"row 1 is b in .* and x in "):
        compare.paired(one, two)
    with pytest.raises(InputError, match=r"holds no run .*No such file"):
        compare.paired(one, tmp_path / "nowhere")
