"""The check of a data set says what is there, and what is not."""

from __future__ import annotations

import sys

import check_data
import numpy as np
import pytest
from PIL import Image
from segmentation_sets import picture, rectangle, write_voc


@pytest.fixture
def check(monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["check_data.py", *map(str, arguments)])
        code = check_data.main()
        said = capsys.readouterr()
        return code, said.out + (said.err if code == 2 else "")

    return run


def test_what_is_there_and_what_is_not(tmp_path, check):
    names = [f"2007_{i:06d}" for i in range(25)]
    indices = dict.fromkeys(names, 3 * rectangle(16, 16, 0, 0, 8, 8))
    indices[names[0]] = 255 * rectangle(16, 16, 0, 0, 16, 4)
    root = write_voc(tmp_path, dict.fromkeys(names, picture(16, 16)), indices)
    code, said = check("voc", tmp_path)
    assert code == 0 and said.splitlines() == [
        "25 images; the official set has 1449",
        "25 can be read; of 24 an object is known",
        "25.0 % of these images' pixels are of objects; of all 1.0 % are void",
        "no object: 2007_000000.jpg",
    ]
    for name in names[1:23]:
        small = Image.fromarray(np.zeros((8, 16), np.uint8))
        small.save(root / "SegmentationClass" / f"{name}.png")
    code, said = check("voc", tmp_path)
    assert code == 1 and "3 can be read; of 2 an object is known" in said
    why = "its segmentation is 8×16 pixels, and the image 16×16"
    assert f"cannot be read: 2007_000001.jpg ({why})\n" in said
    assert said.splitlines()[-1] == "cannot be read: 2 more"
    (root / "JPEGImages" / f"{names[4]}.jpg").unlink()
    code, said = check("voc", tmp_path)
    assert code == 2 and said.startswith("check_data: ") and "lacks 1 of 25 files" in said
