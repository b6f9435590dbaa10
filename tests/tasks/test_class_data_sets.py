"""NN-Explainer's published configurations of VOC 2007 and CUB-200 on small directories in their
official layouts: a classifier, its explainer, the masks of the annotated classes, their scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_VIT, UNFINISHED
from ml_collections import ConfigDict
from running import lines, run
from segmentation_sets import picture, rectangle, write_cub, write_voc, write_votes

from configs import nn_explainer_vgg16_cub, nn_explainer_vgg16_voc
from ltx_jax.masks.tokens import upsample

pytest.importorskip("grain")
pytestmark = [UNFINISHED, pytest.mark.usefixtures("orbax_gives_up"), pytest.mark.slow]
SIDE = TINY_VIT["image_size"]
LEFT, RIGHT = rectangle(SIDE, SIDE, 2, 1, 12, 7), rectangle(SIDE, SIDE, 4, 9, 15, 16)


def tiny(config: ConfigDict) -> ConfigDict:
    """The configuration with small networks, trained for an epoch."""
    config.explainee.name, config.explainee.weights = "vit", "fresh"
    config.explainee.trained = "all"
    sizes = {name: size for name, size in TINY_VIT.items() if name != "num_classes"}
    config.explainee.sizes.update(sizes)
    config.explainer.name = config.explainer.head = None
    config.explainer.sizes = ConfigDict({})
    config.pretrain.epochs, config.pretrain.batch_size = 1, 2
    return config


def through_all_tasks(config: ConfigDict, test: Path, out: Path) -> tuple[list, list]:
    """The results and the scores of the images under `test`, by a classifier and an explainer that
    are trained on those of the configuration."""
    config.task = "train_classifier"
    run(config, out / "classifier")
    config.explainee.weights = str(out / "classifier" / "classifier.safetensors")
    config.task = "pretrain"
    run(config, out / "explainer")
    config.explainer.checkpoint = str(out / "explainer" / "explainer.safetensors")
    config.pretrain.held_out = None
    config.task, config.images = "explain", str(test)
    run(config, out / "masks")
    config.task = "evaluate"
    run(config, out / "masks")
    return lines(out / "masks"), lines(out / "masks", "scores.jsonl")


def soft_iou(mask: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> float:
    """Percent, of pixels that count."""
    mask = upsample(mask, truth.shape)[counts]
    return 100 * np.minimum(mask, truth[counts]).sum() / np.maximum(mask, truth[counts]).sum()


def test_voc_2007(tmp_path):
    cat, dog, person = 8, 12, 15
    indices = np.where(LEFT, cat, 0)
    indices[RIGHT] = dog
    indices[:, 7:9] = 255
    pictures = {f"00000{i}": picture(SIDE, SIDE, i) for i in range(7)}
    kinds = ["cat", "dog", "person", "cat", "dog", "cat", "person"]
    objects = {name: [(kind, 0)] for name, kind in zip(pictures, kinds, strict=True)}
    objects["000005"] = [("dog", 0), ("cat", 1), ("cat", 0)]
    names = list(pictures)
    for listed, part in {"train": names[:4], "val": names[4:5], "test": names[5:]}.items():
        some = {name: pictures[name] for name in part}
        marked = {"000005": indices} if listed == "test" else {}
        main = f"VOC2007/ImageSets/Main/{listed}.txt"
        write_voc(tmp_path, some, marked, {n: objects[n] for n in part}, main)
    lists = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    config = tiny(nn_explainer_vgg16_voc.get_config())
    config.images, config.pretrain.held_out = str(lists / "train.txt"), str(lists / "val.txt")
    found, scores = through_all_tasks(config, lists / "test.txt", tmp_path)
    # A row for each annotated class, once; where there is no segmentation there is no overlap.
    asked = [(one["image"], one["class"]) for one in found]
    assert asked == [("000005.jpg", cat - 1), ("000005.jpg", dog - 1), ("000006.jpg", person - 1)]
    masks = np.load(tmp_path / "masks" / "masks" / "pltx.npy")
    counts = indices != 255
    for i, object_ in enumerate((cat, dog)):
        expected = soft_iou(masks[i], indices == object_, counts)
        assert scores[i]["soft_iou"] == pytest.approx(expected, rel=1e-4)
    assert scores[2]["soft_iou"] is None and 0 <= scores[2]["pos"] <= 90


def test_cub_200(tmp_path):
    root = tmp_path / "CUB_200_2011"
    names = [f"{i // 2 + 1:03}.Bird/Bird_{i:04}.jpg" for i in range(8)]
    birds = {str(i + 1): (name, str(i // 2 + 1), str(int(i < 6))) for i, name in enumerate(names)}
    write_cub(root, birds, SIDE, SIDE)
    votes = {name: 255 * (LEFT if i % 2 else RIGHT) for i, name in enumerate(names)}
    write_votes(root / "segmentations", votes)
    config = tiny(nn_explainer_vgg16_cub.get_config())
    config.images, config.pretrain.validation = str(root / "train"), 2 / 6
    found, scores = through_all_tasks(config, root / "test", tmp_path)
    assert [one["class"] for one in found] == [3, 3]
    masks = np.load(tmp_path / "masks" / "masks" / "pltx.npy")
    for mask, one, bird in zip(masks, scores, (RIGHT, LEFT), strict=True):
        expected = soft_iou(mask, bird, np.ones_like(bird))
        assert one["soft_iou"] == pytest.approx(expected, rel=1e-4)
