"""The segmentation test from official files to the table, worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from running import lines, run
from segmentation_sets import (
    picture,
    rectangle,
    run_lengths,
    write_coco,
    write_imagenet,
    write_voc,
)

import ltx_jax

SCORES = ("pixel_accuracy", "mean_iou", "average_precision", "f1", "f1_by_rows")
# At the network's size. The first map marks half of the object, and as much beside it; the object
# of the second image is nowhere; the third map is the object.
OBJECTS = [
    rectangle(16, 16, 0, 0, 8, 8),
    np.zeros((16, 16), bool),
    rectangle(16, 16, 0, 0, 16, 8),
]
MAPS = np.stack([rectangle(16, 16, 0, 4, 8, 12), OBJECTS[0], OBJECTS[2]]).astype(np.float32)
VOID = rectangle(16, 16, 0, 15, 16, 16)
IMAGES = [picture(16, 16, i) for i in range(3)]


def voc(folder):
    """The last column is void in the first two images, which leaves 240 pixels."""
    names = ("2007_000033", "2007_000042", "2007_000061")
    void = [255 * VOID, 255 * VOID, 0]
    indices = [10 * objects + one for objects, one in zip(OBJECTS, void, strict=True)]
    write_voc(folder, dict(zip(names, IMAGES, strict=True)), dict(zip(names, indices, strict=True)))


def coco(folder):
    """A crowd and a polygon in the first, a polygon in the third."""
    pytest.importorskip("pycocotools")
    names = [f"00000000000{i}.jpg" for i in range(3)]
    instances = [
        (names[0], run_lengths(rectangle(16, 16, 0, 0, 8, 5)), 1),
        (names[0], [[4, 0, 8, 0, 8, 8, 4, 8]], 0),
        (names[2], [[0, 0, 8, 0, 8, 16, 0, 16]], 0),
    ]
    write_coco(folder, dict(zip(names, IMAGES, strict=True)), instances)


def imagenet_segmentation(folder):
    """The same without void pixels."""
    pytest.importorskip("h5py")
    write_imagenet(folder / "gtsegs_ijcv.mat", IMAGES, OBJECTS)


@pytest.fixture(params=[voc, coco, imagenet_segmentation])
def dataset(request, config, tmp_path):
    """The settings of a run on each, and how many pixels of its first image count."""
    folder = tmp_path / "data"
    folder.mkdir()
    request.param(folder)
    config.dataset, config.images = request.param.__name__, str(folder)
    config.scores = SCORES
    return config, 240 if request.param is voc else 256


def test_maps_are_scored_as_by_hand(dataset, tmp_path):
    config, pixels = dataset
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "hand.npy", MAPS)
    config.task, config.evaluate.masks = "evaluate", str(tmp_path / "maps")
    run(config, tmp_path / "out")
    first, second, third = lines(tmp_path / "out", "scores/hand.jsonl")
    # 32 pixels are right, 32 over, 32 missed.
    assert first["mean_iou"] == [32, 32, 32, pixels - 96]
    assert first["pixel_accuracy"] == [pixels - 64, pixels]
    assert first["f1"] == pytest.approx(50) and first["iou"] == pytest.approx(100 / 3, rel=1e-5)
    assert first["f1_by_rows"] == pytest.approx(25)  # half in each of the upper rows
    right = (pixels - 64) / pixels
    ap = 100 * (right**2 + (1 - right) / 2)
    assert first["average_precision"] == pytest.approx(ap, rel=1e-5)
    assert second["mean_iou"] == [None] * 4 and second["pixel_accuracy"] == [None] * 2
    assert second["f1"] is second["iou"] is second["average_precision"] is None
    assert third["mean_iou"] == [128, 0, 0, 128] and third["average_precision"] == 100
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    found = found["methods"]["hand"]
    expected = {
        "pixel_accuracy": 100 * (pixels - 64 + 256) / (pixels + 256),
        "mean_iou": 100 * (160 / 224 + (pixels + 32) / (pixels + 96)) / 2,
        "average_precision": (ap + 100) / 2,
        "f1": 75,
        "f1_by_rows": 62.5,
    }
    assert {name: found[name]["mean"] for name in SCORES} == pytest.approx(expected, abs=1e-3)
    assert found["mean_iou"]["high"] == 100  # of the third image alone


def test_a_run_is_scored_beside_its_rivals(config, tmp_path):
    (tmp_path / "data").mkdir()
    voc(tmp_path / "data")
    config.dataset, config.images = "voc", str(tmp_path / "data")
    config.scores, config.finetune.steps = SCORES, 0
    config.rivals = ("gradient_x_input",)
    printed = run(config, tmp_path / "out")
    assert "mIoU ↑" in printed and "pixel accuracy ↑" in printed
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    records = {one["row"]: one["pltx"] for one in lines(tmp_path / "out")}
    assert records[1]["mean_iou"] == [None] * 4
    both, over, missed, neither = np.array([records[row]["mean_iou"] for row in (0, 2)]).sum(0)
    mean = (both / (both + over + missed) + neither / (neither + over + missed)) / 2
    assert summary["pltx"]["mean_iou"]["mean"] == pytest.approx(100 * mean, abs=1e-3)
    masks = np.load(tmp_path / "out" / "masks" / "gradient_x_input.npy")
    marked = masks > masks.mean((1, 2), keepdims=True)
    rival = {one["row"]: one for one in lines(tmp_path / "out", "scores/gradient_x_input.jsonl")}
    assert rival[2]["pixel_accuracy"] == [(marked[2] == OBJECTS[2]).sum(), 256]
    assert set(SCORES) <= summary["rivals"]["gradient_x_input"].keys()


def test_from_python(explainee, images):
    found = ltx_jax.evaluate(
        explainee, images[:3], MAPS, [0, 0, 0], truth=np.stack(OBJECTS), scores=SCORES
    )
    counts = [[32, 32, 32, 160], [np.nan] * 4, [128, 0, 0, 128]]
    np.testing.assert_array_equal(found.scores["mean_iou"], counts)
    np.testing.assert_allclose(found.scores["f1"], [50, np.nan, 100])
    mean = 100 * (160 / 224 + 288 / 352) / 2
    assert found.summary()["mean_iou"]["mean"] == pytest.approx(mean, abs=1e-3)
