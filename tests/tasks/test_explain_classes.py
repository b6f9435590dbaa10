"""An explainer with a mask for every class as a user runs it: a row for each image and class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from running import run

import ltx_jax
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer
from ltx_jax.loading.explainers import load_explainer, load_mask
from ltx_jax.masks.tokens import activate
from ltx_jax.models.explainee import Explainee


@pytest.fixture(scope="module")
def every(explainee: Explainee) -> Explainer:
    """A mask for each of five classes, of different classes well apart."""
    network = load_explainer(explainee, classes=5, seed=3)
    kernel = network.trained["params/head/mask/kernel"]
    far = {"params/head/mask/kernel": 5 * np.asarray(kernel)}
    return network.replace(trained=network.trained | far)


@pytest.fixture
def classes(config: ConfigDict, every: Explainer, tmp_path: Path) -> ConfigDict:
    """Three images, the explainer's masks as they are."""
    ltx_jax.save_explainer(tmp_path / "every.safetensors", every)
    config.explainer.checkpoint = str(tmp_path / "every.safetensors")
    config.indices, config.finetune.steps = "3:6", 0
    return config


def test_a_row_has_its_classes_mask(classes, every, explainee, images, tmp_path):
    raw = every.draw(every.trained, every.prefix(images[:2]))
    expected = np.asarray(activate(raw.reshape(10, 4, 4), "sigmoid")).reshape(2, 5, 4, 4)
    found = ltx_jax.explain(explainee, images[:2], [[1, 4], [0]], every, steps=0)
    assert found.targets.tolist() == [1, 4, 0]
    np.testing.assert_allclose(found.token_masks("pltx"), expected[[0, 0, 1], [1, 4, 0]], atol=1e-5)
    # The mask itself starts from that of the class as well.
    start = load_mask(explainee, every)
    values = ltx_jax.explain(explainee, images[:2], [[1, 4], [0]], start, steps=0)
    order = np.stack([one.raw["final"] for one in values.each])
    np.testing.assert_allclose(order, raw[np.array([0, 0, 1]), np.array([1, 4, 0])], atol=1e-5)


def test_no_optimizer_of_all_classes_is_resumed_for_one(classes, tmp_path):
    classes.finetune.resume = True
    with pytest.raises(InputError, match=r"mask for each of 5 classes, and config.finetune.res"):
        run(classes, tmp_path / "out")
    assert not (tmp_path / "out").exists()
