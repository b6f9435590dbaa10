"""DeepLabv3 against torchvision's: each part, in evaluation and in training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.parity
parity = pytest.importorskip("parity_tools")

from ltx_jax.explainers.deeplab import DeepLabHead  # noqa: E402
from ltx_jax.explainers.explainer import MaskNetwork, weight_table  # noqa: E402
from ltx_jax.models.registry import architecture  # noqa: E402
from ltx_jax.weights.state_dict import from_state_dict, shapes_of, to_state_dict  # noqa: E402

IMAGES = np.random.default_rng(0).normal(0, 1, (2, 48, 40, 3)).astype(np.float32)
DEPTHS, CLASSES = (1, 1, 2, 2), 5


def theirs():
    """torchvision's DeepLabv3 on a shorter ResNet."""
    models = parity.torchvision.models
    parity.torch.manual_seed(0)
    backbone = models.resnet.ResNet(
        models.resnet.Bottleneck, DEPTHS, replace_stride_with_dilation=[False, True, True]
    )
    features = models._utils.IntermediateLayerGetter(backbone, {"layer4": "out"})
    head = models.segmentation.deeplabv3.DeepLabHead(2048, CLASSES)
    return parity.lively(models.segmentation.DeepLabV3(features, head))


def ours(state, training=False):
    """The same network, its weights of a state dict."""
    network = architecture("resnet50", depths=DEPTHS, dilated=(False, True, True), num_classes=0)
    network = network.with_module(training=training)
    module = MaskNetwork(network.module, DeepLabHead(CLASSES, training=training))
    table = weight_table(network, module.head)
    shapes = shapes_of(module, IMAGES.shape[1:3])
    own = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    return module, from_state_dict(own, table, shapes, "deeplab"), table


def assert_close(found, expected, tolerance=1e-4):
    expected = expected.detach().numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, atol=tolerance)


def test_in_evaluation():
    network = theirs().eval()
    module, variables, _ = ours(parity.state_dict(network))
    x = parity.channels_first(IMAGES)
    with parity.torch.no_grad():
        stages = network.backbone(x)["out"]
        expected = network.classifier(stages)
    raw, features = jax.jit(
        lambda variables, images: (
            module.apply(variables, images),
            module.apply(variables, images, method="_features"),
        )
    )(variables, IMAGES)
    assert features.shape == (2, 6, 5, 2048)  # an eighth of the image
    assert_close(jnp.moveaxis(features, -1, 1), stages)
    assert_close(raw, expected)


def test_in_training_but_for_what_is_dropped():
    network = theirs().train()
    network.classifier[0].project[3].p = 0.0
    # PyTorch moves its running statistics in place.
    before = {name: tensor.copy() for name, tensor in parity.state_dict(network).items()}
    module, variables, table = ours(before, training=True)
    expected = network.classifier(network.backbone(parity.channels_first(IMAGES))["out"])
    (expected**2).mean().backward()

    def loss(params):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        rngs = {"dropout": jax.random.key(0)}
        raw, moved = module.apply(given, jnp.asarray(IMAGES), mutable=["batch_stats"], rngs=rngs)
        return (raw**2).mean(), (raw, moved)

    # Without dropout on either side.
    module = module.clone(head=module.head.clone(dropped=0.0))
    gradient, (raw, moved) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert_close(raw, expected, 5e-4)
    state = to_state_dict({"params": gradient, **moved}, table)
    statistics = parity.state_dict(network)
    parameters = dict(network.named_parameters())
    for name, found in state.items():
        whole = name if name.startswith("classifier.") else f"backbone.{name}"
        if "running" in name:
            np.testing.assert_allclose(found, statistics[whole], rtol=1e-3, atol=1e-4)
        else:
            expected = parameters[whole].grad.numpy().reshape(found.shape)
            limit = 5e-3 * max(float(np.abs(expected).max()), 1e-6)
            np.testing.assert_allclose(found, expected, atol=limit, err_msg=whole)


def test_half_of_the_features_are_dropped_in_training():
    head = DeepLabHead(CLASSES, width=64, training=True)
    features = jnp.ones((1, 4, 4, 8))
    given = head.init({"params": jax.random.key(0), "dropout": jax.random.key(0)}, features)

    def draw(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return head.apply(given, features, mutable=["batch_stats"], rngs=rngs)[0]

    assert (draw(1) != draw(2)).any()
    np.testing.assert_array_equal(draw(1), draw(1))
