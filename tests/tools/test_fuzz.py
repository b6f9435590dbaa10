"""A few cases of the fuzzing program, and how it tells of a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import fuzz
import numpy as np
import pytest
from PIL import Image, ImageOps

COUNTS = {"pictures": 150, "exif": 150, "safetensors": 80, "workdirs": 150}


@pytest.mark.parametrize(("part", "count"), COUNTS.items())
def test_files_are_read_or_refused(part, count):
    outcomes, failures = fuzz.run(fuzz.CASES[part], 0, count)
    assert failures == [] and outcomes.total() == count
    assert outcomes[fuzz.READ] > count / 10


def test_a_seed_is_a_case():
    first, again, other = (fuzz.encoded(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other
    assert fuzz.damaged(np.random.default_rng(3), first) != first


@pytest.mark.parametrize("orientation", range(10))
def test_turned_is_as_pillow_turns(orientation):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 5, 3), np.uint8))
    expected = image.copy()
    expected.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(
        fuzz.turned(np.asarray(image), orientation), np.asarray(ImageOps.exif_transpose(expected))
    )


def hostile(rng: np.random.Generator, folder: Path) -> str:
    """Fails for one seed in particular."""
    if rng.random() == np.random.default_rng(12).random():
        raise KeyError(f"{folder}/file\nis odd")
    return fuzz.one_line(ValueError("refused"))


def test_failures_are_told_with_their_seed(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "CASES", {"odd": hostile})
    monkeypatch.setattr(sys, "argv", ["fuzz", "--seed=10", "--odd=5"])
    assert fuzz.main() == 1
    counts, told = capsys.readouterr().out.splitlines()
    assert counts.startswith("odd: 0 read, 4 refused, 1 failed in")
    assert "1 × KeyError" in told and told.endswith("(--seed=12)") and "…/file" in told
    monkeypatch.setattr(sys, "argv", ["fuzz", "--odd=5"])
    assert fuzz.main() == 0


@pytest.mark.parametrize("told", ["", "two\nlines"])
def test_a_refusal_is_one_line(told):
    with pytest.raises(fuzz.WrongError, match="not one line"):
        fuzz.one_line(ValueError(told))
