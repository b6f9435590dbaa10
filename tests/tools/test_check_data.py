"""The check of a data set says what is there, and what is not."""

from __future__ import annotations

import sys

import check_data
import numpy as np
import pytest
from imagenet_layouts import IDS, write_images, write_mapping
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


def test_classes_and_their_masks(tmp_path, check):
    names = ["000005", "000007", "000009"]
    objects = {names[0]: [("dog", 0)], names[1]: [("cat", 0), ("dog", 1)], names[2]: []}
    indices = {names[0]: 12 * rectangle(16, 16, 0, 0, 4, 16)}
    images = dict.fromkeys(names, picture(16, 16))
    listed = "VOC2007/ImageSets/Main/train.txt"
    write_voc(tmp_path, images, indices, objects, listed)
    code, said = check("voc", tmp_path / "VOCdevkit" / listed, "--labels=classes")
    assert code == 0 and said.splitlines() == [
        "3 images; the official set has 2501",
        "3 can be read; of 1 an object is known",
        "of 2 classes are known, 2 in all, from 7 to 11",
        "25.0 % of these images' pixels are of objects; of all 0.0 % are void",
        "no object: 000007.jpg",
        "no object: 000009.jpg",
    ]


def test_imagenet_and_folders(tmp_path, check):
    folder = write_images(tmp_path / "val", [f"{IDS[i]}/a.JPEG" for i in (4, 2)])
    code, said = check("imagenet", folder)
    assert code == 2 and "holds 2 of ImageNet's 1000 classes" in said
    write_mapping(tmp_path)
    (folder / IDS[2] / "b.JPEG").write_text("no picture")
    code, said = check("imagenet", folder)
    assert code == 1 and said.splitlines() == [
        "3 images; the official set has 50000",
        "2 can be read",
        "of 3 classes are known, 2 in all, from 2 to 4",
        f"cannot be read: {IDS[2]}/b.JPEG (cannot identify image file 'the file')",
    ]
    (folder / IDS[2] / "b.JPEG").unlink()
    code, said = check("folders", folder)
    assert code == 0 and said.splitlines() == [
        "2 images",
        "2 can be read",
        "of 2 classes are known, 2 in all, from 0 to 1",
    ]
    with pytest.raises(SystemExit):
        check("folders", folder, "--labels=classes")
