"""Grad-CAM by value on explainees whose features are known, and against hooks in PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltx_jax.attribution.grad_cam import grad_cam, grad_cam_signed
from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import architecture
from ltx_jax.weights.state_dict import from_state_dict, shapes_of

# Two channels of an image of 1×2, which are the features as they are.
IMAGES = jnp.array([[[[1.0, 2.0], [3.0, 1.0]]], [[[0.5, 0.0], [0.5, 4.0]]]])
WEIGHTS = jnp.array([[1.0, -1.0], [-2.0, 3.0]])


def _features(weights, images, added):
    """Logits: weights times the sum over positions of each channel's square."""
    features = images + added.get("features", jnp.zeros_like(images))
    return (features**2).sum((1, 2)) @ weights, {"features": features}


def _logits(weights, images):
    return _features(weights, images, {})[0]


TOY = Explainee(_logits, WEIGHTS, (1, 2), 2, channels=2, features=_features)


def test_channels_are_weighted_with_their_mean_gradient():
    # The gradient of w·a² is 2·w·a, its mean over positions w times the sum of the two.
    # Class 0 of the first image: weights (4, −6); class 1 of the second: (−1, 12).
    expected = np.array([[[4 * 1 - 6 * 2, 4 * 3 - 6 * 1]], [[-0.5, -0.5 + 12 * 4]]])
    targets = jnp.array([0, 1])
    np.testing.assert_allclose(grad_cam_signed(TOY, IMAGES, targets), expected, rtol=1e-6)
    np.testing.assert_allclose(grad_cam(TOY, IMAGES, targets), expected.clip(0), rtol=1e-6)


def test_an_explainee_that_gives_no_features_is_refused():
    with pytest.raises(InputError, match="custom gives no intermediates"):
        grad_cam(Explainee(_logits, WEIGHTS, (1, 2), 2, channels=2), IMAGES, jnp.array([0, 1]))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "sizes", "layer"),
    [
        ("resnet18", {}, "layer4"),
        ("vit_tiny_patch16_224", {"image_size": 64, "depth": 2}, "blocks.0"),
        ("vit_tiny_patch16_224", {"image_size": 64, "depth": 1}, "norm_pre"),
    ],
)
def test_maps_are_those_of_hooks(name, sizes, layer):
    parity = pytest.importorskip("parity_tools")
    parity.torch.manual_seed(0)
    theirs = {"img_size": 64, "depth": sizes["depth"]} if sizes else {}
    reference = parity.lively(parity.timm.create_model(name, pretrained=False, **theirs))
    network = architecture(name, **sizes)
    shapes = shapes_of(network.module, (64, 64))
    table = network.table(network.module)
    params = from_state_dict(parity.state_dict(reference), table, shapes, name)
    ours = Explainee(network.apply, params, (64, 64), 1000, features=network.features)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    targets = np.array([3, 7], np.int32)

    seen = []
    reference.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(out))
    how = network.preprocessing
    normalised = (images - np.float32(how.mean)) / np.float32(how.std)
    logits = reference(parity.channels_first(normalised))
    (slopes,) = parity.torch.autograd.grad(logits[range(2), targets].sum(), seen)
    features = seen[0]
    if sizes:  # tokens, the class token first
        features, slopes = (x[:, 1:].mT.unflatten(-1, (4, 4)) for x in (features, slopes))
    expected = (features * slopes.mean((2, 3), keepdim=True)).sum(1).detach().numpy()
    found = grad_cam_signed(ours, jnp.asarray(images), jnp.asarray(targets))
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)
