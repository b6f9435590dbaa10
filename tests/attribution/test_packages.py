"""Rivals against the packages `grad-cam` and `captum`, on torchvision's ResNet-18."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.parity
parity = pytest.importorskip("parity_tools")
pytest.importorskip("captum")
package = pytest.importorskip("pytorch_rivals")
from pytorch_networks import Normalised  # noqa: E402

from ltx_jax.attribution import RIVALS  # noqa: E402
from ltx_jax.attribution.lift_cam import lift_cam_signed  # noqa: E402
from ltx_jax.attribution.rival import scaled  # noqa: E402
from ltx_jax.models.explainee import Explainee  # noqa: E402
from ltx_jax.models.registry import architecture  # noqa: E402
from ltx_jax.weights.state_dict import from_state_dict, shapes_of  # noqa: E402

SIDE = 64
IMAGES = np.random.default_rng(0).random((2, SIDE, SIDE, 3), np.float32)


def explainee_of(reference, name: str) -> Explainee:
    """Ours with a torchvision network's weights."""
    network = architecture(name)
    state = parity.state_dict(reference)
    for dialect in network.dialects:
        state = dialect(state) or state
    shapes = shapes_of(network.module, (SIDE, SIDE))
    params = from_state_dict(state, network.table(network.module), shapes, name)
    return Explainee(network.apply, params, (SIDE, SIDE), 1000, name, features=network.features)


@pytest.fixture(scope="module")
def twins():
    """An explainee, and the same as the packages take it."""
    parity.torch.manual_seed(0)
    reference = parity.lively(parity.torchvision.models.resnet18(weights=None))
    how = architecture("resnet18").preprocessing
    classifier = Normalised(reference, how, None).eval().requires_grad_(False)
    return explainee_of(reference, "resnet18"), classifier


@pytest.mark.parametrize("name", list(package.PACKAGES))
def test_maps_are_the_packages(name, twins):
    if name.endswith(("cam", "plus", "grad")):
        pytest.importorskip("pytorch_grad_cam")
    explainee, classifier = twins
    images = IMAGES[:1] if name == "score_cam" else IMAGES  # a forward for each channel
    logits = np.asarray(explainee(images))
    targets = np.argsort(logits)[:, -3].astype(np.int32)  # above zero
    expected = package.PACKAGES[name](package.Case(classifier, images, targets))
    found = np.asarray(RIVALS[name].maps(explainee, jnp.asarray(images), jnp.asarray(targets)))
    if name == "ablation_cam":  # the package divides by the logit
        found = found / logits[range(len(images)), targets][:, None, None]
    if name == "full_grad":  # which the package scales
        found = np.asarray(scaled(found))
    span = np.ptp(expected, (1, 2), keepdims=True)
    assert found.shape == expected.shape and (span > 0).all()
    np.testing.assert_allclose(found / span, expected / span, atol=1e-3)


def test_contributions_are_captums_deep_lift():
    parity.torch.manual_seed(0)
    reference = parity.lively(parity.torchvision.models.squeezenet1_1(weights=None))
    with parity.torch.no_grad():
        reference.classifier[1].bias.normal_(0, 0.5)
    explainee = explainee_of(reference, "squeezenet1_1")
    targets = np.array([3, 7], np.int32)
    how = architecture("squeezenet1_1").preprocessing
    normalised = (IMAGES - np.float32(how.mean)) / np.float32(how.std)
    maps = reference.features(parity.channels_first(normalised)).detach()
    reference.classifier[2].inplace = False
    head = parity.torch.nn.Sequential(reference.classifier, parity.torch.nn.Flatten())
    from captum.attr import DeepLift

    with pytest.warns(UserWarning, match="forward, backward hooks"):
        found = DeepLift(head).attribute(
            maps, baselines=maps * 0, target=parity.torch.tensor(targets)
        )
    weights = found.detach().sum((2, 3), keepdim=True)
    expected = (weights * maps).sum(1).numpy()
    ours = lift_cam_signed(explainee, jnp.asarray(IMAGES), jnp.asarray(targets))
    span = np.abs(expected).max()
    assert span > 0
    np.testing.assert_allclose(ours / span, expected / span, atol=1e-4)
