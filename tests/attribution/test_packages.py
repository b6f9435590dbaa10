"""Rivals against the packages `grad-cam` and `captum`, on torchvision's ResNet-18."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("fast_programs")]
parity = pytest.importorskip("parity_tools")
pytest.importorskip("captum")
pytest.importorskip("pytorch_grad_cam")
package = pytest.importorskip("pytorch_rivals")
from pytorch_networks import Normalised  # noqa: E402

from ltx_jax.attribution import RIVALS  # noqa: E402
from ltx_jax.masks.spanning import spanning  # noqa: E402
from ltx_jax.models.explainee import Explainee  # noqa: E402
from ltx_jax.models.registry import architecture  # noqa: E402
from ltx_jax.weights.state_dict import from_state_dict, shapes_of  # noqa: E402

SIDE = 40
IMAGES = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)
# Occlusion, of larger images, is in test_rise_and_occlusion.py.
CASES = [("resnet18", rival) for rival in package.PACKAGES if rival != "occlusion"]
CASES += [("squeezenet1_1", "lift_cam")]


@cache
def twins(name: str) -> tuple[Explainee, Normalised]:
    """An explainee with a torchvision network's random weights, and that network."""
    parity.torch.manual_seed(0)
    reference = parity.lively(getattr(parity.torchvision.models, name)(weights=None))
    if name == "squeezenet1_1":  # whose biases torchvision sets to zero
        for bias in (parameter for parameter in reference.parameters() if parameter.ndim == 1):
            parity.torch.nn.init.normal_(bias, 0, 0.3)
    network, state = architecture(name), parity.state_dict(reference)
    for dialect in network.dialects:
        state = dialect(state) or state
    table, shapes = network.table(network.module), shapes_of(network.module, (SIDE, SIDE))
    params = jax.tree.map(jnp.asarray, from_state_dict(state, table, shapes, name))
    ours = Explainee(network.apply, params, (SIDE, SIDE), 1000, name, features=network.features)
    classifier = Normalised(reference, network.preprocessing, None).requires_grad_(False)
    return ours, classifier.double()  # PyTorch's float32 is up to 2e-3 off where a ReLU falls over


@pytest.mark.parametrize(("network", "name"), CASES)
def test_maps_are_the_packages(network, name):
    explainee, classifier = twins(network)
    many = ("score_cam", "ablation_cam", "integrated_gradients", "smoothgrad")  # forwards
    images = IMAGES[:1] if name in many else IMAGES
    with parity.torch.no_grad():
        logits = classifier(parity.channels_first(images).double()).numpy()
    targets = np.argsort(logits)[:, -3].astype(np.int32)  # above zero
    expected = package.PACKAGES[name](package.Case(classifier, images, targets))
    found = np.asarray(RIVALS[name].maps(explainee, jnp.asarray(images), jnp.asarray(targets)))
    if name == "ablation_cam":  # the package divides by the logit
        found = found / logits[range(len(images)), targets][:, None, None]
    if name == "full_grad":  # which the package scales
        found = np.asarray(spanning(found))
    span = np.ptp(expected, (1, 2), keepdims=True)
    assert found.shape == expected.shape and (span > 0).all()
    np.testing.assert_allclose(found / span, expected / span, atol=1e-3)
