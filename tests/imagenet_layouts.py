"""ImageNet in small, in the layouts that people have it in; files that tell classes are whole."""

from __future__ import annotations

import os
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

# In sorted order: a class index is the place in it.
IDS = [f"n{10_000_000 + 7 * i}" for i in range(1000)]
DEVKIT = "ILSVRC2012_devkit_t12/data"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def class_of(number: int) -> int:
    """The class index of a validation image."""
    return (number * 13 + 5) % 1000


def devkit_number(index: int) -> int:
    """What the devkit calls a class, from 1 to 1,000, in an order of its own."""
    return index * 7 % 1000 + 1


def validation_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_images(folder: Path, names: list[str]) -> Path:
    """One picture under many names."""
    folder.mkdir(parents=True, exist_ok=True)
    first = folder / ".one"
    Image.new("RGB", (6, 4), (10, 20, 30)).save(first, "PNG")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(first, folder / name)
    return folder


def write_devkit(folder: Path, numbers: list[object] | None = None) -> Path:
    """The ground truth of all 50,000 images, or other lines, and meta.mat. Returns the ground
    truth's path."""
    root = folder / DEVKIT
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta.mat").write_bytes(_meta())
    usual = _usual_numbers() if numbers is None else numbers
    (root / GROUND_TRUTH).write_text("".join(f"{one}\n" for one in usual))
    return root / GROUND_TRUTH


@cache
def _meta() -> bytes:
    """The classes and two groups of them."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(devkit_number(i), one, f"kind {i}", 0) for i, one in enumerate(IDS)]
    groups = [(1001, "n00001740", "entity", 2), (1002, "n00001930", "thing", 998)]
    content = BytesIO()
    savemat(content, {"synsets": np.array(sorted(rows) + groups, dtype=kinds)[:, None]})
    return content.getvalue()


@cache
def _usual_numbers() -> list[object]:
    return [devkit_number(class_of(number)) for number in range(1, 50_001)]


@cache
def _solution() -> list[tuple[int, str]]:
    """Kaggle's order is one of its own, and some images have two boxes."""
    return [
        (number, f"ILSVRC2012_val_{number:08d}," + f"{IDS[class_of(number)]} 1 2 3 4 " * boxes)
        for number, boxes in zip(range(50_000, 0, -1), [1, 2] * 25_000, strict=True)
    ]


def write_solution(folder: Path, change: dict[int, str | None] | None = None) -> Path:
    """Kaggle's list of all 50,000 images; other ids for some, None for no line."""
    change = change or {}
    lines = [line for number, line in _solution() if number not in change]
    for number, one in change.items():
        lines += [] if one is None else [f"ILSVRC2012_val_{number:08d},{one} 1 2 3 4 "]
    path = folder / "LOC_val_solution.csv"
    path.write_text("\n".join(["ImageId,PredictionString", *lines]) + "\n")
    return path


def write_mapping(folder: Path, ids: list[str] = IDS) -> Path:
    """Kaggle's list of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{one} kind, another word" for one in ids]
    (folder / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    return folder / "LOC_synset_mapping.txt"
