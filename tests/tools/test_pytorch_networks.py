"""Our networks in PyTorch give what ours give."""

import dataclasses
import sys
import types

import numpy as np
import pytest
from conftest import random_weights

parity = pytest.importorskip("parity_tools")

import pytorch_loop  # noqa: E402
import pytorch_networks  # noqa: E402

from ltx_jax.errors import InputError  # noqa: E402
from ltx_jax.loading.explainees import load_explainee  # noqa: E402
from ltx_jax.loading.explainers import load_explainer  # noqa: E402

pytestmark = pytest.mark.parity


def test_a_torchvision_that_has_its_operators_defines_them(monkeypatch):
    """Twice defined they would abort the process."""
    own = types.ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", own)
    monkeypatch.setattr(parity.torch.library, "Library", None)
    assert pytorch_networks.define_torchvision_operators.__wrapped__() is own


def assert_alike(classifier, explainee, images):
    logits = classifier(parity.channels_first(images)).numpy()
    np.testing.assert_allclose(logits, explainee(images), rtol=1e-3, atol=1e-4)


def test_a_vit_and_its_masks(explainee, explainer, images):
    assert_alike(pytorch_networks.load_classifier(explainee), explainee, images)
    network = pytorch_loop.load_masks(explainee, explainer, None)
    with parity.torch.no_grad():
        masks = network(parity.channels_first(images))
    np.testing.assert_allclose(masks[:, 0], explainer.masks(explainer.trained, images), atol=1e-5)


def test_a_cnn_and_its_masks(tmp_path):
    weights = random_weights(tmp_path / "w.safetensors", "resnet18", num_classes=3)
    explainee = load_explainee("resnet18", weights, num_classes=3)
    explainer = load_explainer(explainee, seed=3)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    assert_alike(pytorch_networks.load_classifier(explainee), explainee, images)
    network = pytorch_loop.load_masks(explainee, explainer, None)
    with parity.torch.no_grad():
        masks = network(parity.channels_first(images))
    np.testing.assert_allclose(masks[:, 0], explainer.masks(explainer.trained, images), atol=1e-4)


def test_other_networks_are_refused(explainee):
    own = dataclasses.replace(explainee, architecture=None)
    with pytest.raises(InputError, match="is no network of PyTorch's"):
        pytorch_networks.load_classifier(own)
