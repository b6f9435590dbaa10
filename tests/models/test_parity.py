"""Every family against timm and torchvision on random weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.parity
parity = pytest.importorskip("parity_tools")

from ltx_jax.data.preprocessing import Preprocessing  # noqa: E402
from ltx_jax.models.registry import ARCHITECTURES, architecture  # noqa: E402
from ltx_jax.weights.state_dict import from_state_dict, shapes_of  # noqa: E402

IMAGES = np.random.default_rng(0).normal(0, 1, (2, 64, 64, 3)).astype(np.float32)
TORCHVISION = {"squeezenet1_1": "squeezenet1_1", "mobilenetv2_100": "mobilenet_v2"}
SMALL_VIT = {"image_size": 64, "depth": 2}
CASES = [
    ("vit_tiny_patch16_224", SMALL_VIT),
    ("vit_small_patch32_224", SMALL_VIT),
    ("vit_base_patch16_224", SMALL_VIT),
    ("deit_tiny_patch16_224", SMALL_VIT),
    ("resnet18", {}),
    ("resnet34", {}),
    ("resnet50", {}),
    ("densenet121", {}),
    ("mobilenetv2_100", {}),
    ("squeezenet1_0", {}),
    ("squeezenet1_1", {}),
]


def load(name: str, state: dict, size: int = 64, **sizes: int):
    """Our network with a torch state dict; returns (module, variables)."""
    network = architecture(name, **sizes)
    for dialect in network.dialects:
        state = dialect(state) or state
    shapes = shapes_of(network.module, (size, size))
    return network.module, from_state_dict(state, network.table(network.module), shapes, name)


def theirs(name: str, **sizes: int):
    """The same network of timm, or of torchvision where timm has none."""
    if name.startswith("squeezenet"):
        return getattr(parity.torchvision.models, name)(weights=None)
    more = {"img_size": sizes["image_size"], "depth": sizes["depth"]} if sizes else {}
    return parity.timm.create_model(name, pretrained=False, **more)


def assert_close(ours, reference, tolerance: float = 1e-4):
    reference = reference.detach().numpy()
    if reference.ndim == 4:
        reference = reference.transpose(0, 2, 3, 1)
    scale = np.abs(reference).max()
    np.testing.assert_allclose(np.asarray(ours) / scale, reference / scale, atol=tolerance)


@pytest.mark.parametrize(("name", "sizes"), CASES)
def test_logits(name, sizes):
    parity.torch.manual_seed(0)
    network = parity.lively(theirs(name, **sizes))
    module, variables = load(name, parity.state_dict(network), **sizes)
    with parity.torch.no_grad():
        expected = network(parity.channels_first(IMAGES))
    ours, _ = jax.jit(module.apply)(variables, IMAGES)
    assert_close(ours, expected)


def test_torchvisions_mobilenet_has_its_own_names():
    network = parity.lively(parity.torchvision.models.mobilenet_v2(weights=None))
    module, variables = load("mobilenetv2_100", parity.state_dict(network))
    with parity.torch.no_grad():
        expected = network(parity.channels_first(IMAGES))
    assert_close(jax.jit(module.apply)(variables, IMAGES)[0], expected)


@pytest.mark.parametrize("size", [64, 96, 224])
def test_vggs_of_both_libraries(size):
    # 224 gives the 7×7 that the classifier reads, others are spread or squeezed to it.
    network = parity.torchvision.models.vgg11(weights=None)
    linear = parity.torch.nn.Linear
    network.classifier[0], network.classifier[3] = linear(512 * 7 * 7, 24), linear(24, 24)
    network.classifier[6] = linear(24, 5)
    network = parity.lively(network)
    state, sizes = parity.state_dict(network), {"hidden": 24, "num_classes": 5}
    module, variables = load("vgg11", state, size, **sizes)
    images = np.random.default_rng(0).normal(0, 1, (1, size, size, 3)).astype(np.float32)
    with parity.torch.no_grad():
        expected = network(parity.channels_first(images))
        features = network.features(parity.channels_first(images))
    logits, found = jax.jit(module.apply)(variables, images)
    assert_close(logits, expected)
    assert_close(found["features"], features)
    state["pre_logits.fc1.weight"] = state.pop("classifier.0.weight").reshape(24, 512, 7, 7)
    state["pre_logits.fc2.weight"] = state.pop("classifier.3.weight")[:, :, None, None]
    for theirs, ours in (("pre_logits.fc1", 0), ("pre_logits.fc2", 3), ("head.fc", 6)):
        state[f"{theirs}.bias"] = state.pop(f"classifier.{ours}.bias")
    state["head.fc.weight"] = state.pop("classifier.6.weight")
    _, again = load("vgg11", state, size, **sizes)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize("size", [64, 224])
def test_alexnet(size):
    # 224 gives the 6×6 that the classifier reads.
    network = parity.torchvision.models.alexnet(weights=None)
    linear = parity.torch.nn.Linear
    network.classifier[1], network.classifier[4] = linear(256 * 6 * 6, 24), linear(24, 24)
    network.classifier[6] = linear(24, 5)
    network = parity.lively(network)
    module, variables = load("alexnet", parity.state_dict(network), size, hidden=24, num_classes=5)
    images = np.random.default_rng(0).normal(0, 1, (1, size, size, 3)).astype(np.float32)
    with parity.torch.no_grad():
        expected = network(parity.channels_first(images))
        layers = [network.features[: end + 1](parity.channels_first(images)) for end in (2, 7, 12)]
    logits, found = jax.jit(module.apply)(variables, images)
    assert_close(logits, expected)
    for name, layer in zip(("block1", "block3", "features"), layers, strict=True):
        assert_close(found[name], layer)


LAYERS = {
    "vit_tiny_patch16_224": (SMALL_VIT, {"norm": "tokens", "blocks.0": "blocks.0"}),
    "resnet50": ({}, {f"layer{i}": f"layer{i}" for i in (1, 2, 3, 4)} | {"maxpool": "stem"}),
    "densenet121": (
        {},
        {f"features.denseblock{i}": f"block{i}" for i in (1, 2, 3, 4)}
        | {"features.norm5.bn": "features"},
    ),
    "mobilenetv2_100": ({}, {"blocks.0": "block0", "blocks.1": "block2", "blocks.6": "block16"}),
    "squeezenet1_0": ({}, {f"features.{i}": f"fire{i}" for i in (3, 4, 5, 7, 8, 9, 10, 12)}),
    "squeezenet1_1": ({}, {f"features.{i}": f"fire{i}" for i in (3, 4, 6, 7, 9, 10, 11, 12)}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_by_layer(name):
    sizes, layers = LAYERS[name]
    parity.torch.manual_seed(1)
    reference = theirs(name, **sizes)
    if name == "densenet121":  # timm's norms hold their activation; torchvision's do not
        reference = parity.torchvision.models.densenet121(weights=None)
        layers = {key.removesuffix(".bn"): value for key, value in layers.items()}
    network = parity.lively(reference)
    seen = {}
    for path in layers:
        module = network.get_submodule(path)
        module.register_forward_hook(
            lambda _m, _i, out, path=path: seen.update({path: out.clone()})
        )
    with parity.torch.no_grad():
        network(parity.channels_first(IMAGES))
    module, variables = load(name, parity.state_dict(network), **sizes)
    _, named = jax.jit(module.apply)(variables, IMAGES)
    if name.startswith("vit"):
        grid = named["features"].reshape(len(IMAGES), -1, module.width)
        named["tokens"] = np.concatenate([named["class_token"][:, None], grid], axis=1)
        named |= {f"blocks.{i}": block for i, block in enumerate(named["blocks"])}
    for path, ours in layers.items():
        assert_close(named[ours], seen[path])


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.hub])
def test_parameters_and_preprocessing_are_timms(name):
    with parity.torch.device("meta"):
        network = parity.timm.create_model(name, pretrained=False)
    found = architecture(name)
    shapes = jax.tree.leaves(shapes_of(found.module, found.size)["params"])
    assert sum(np.prod(leaf.shape) for leaf in shapes) == sum(
        parameter.numel() for parameter in network.parameters()
    )
    config = parity.timm.get_pretrained_cfg(found.hub.removeprefix("timm/"))
    how: Preprocessing = found.preprocessing
    assert how.mean == tuple(config.mean) and how.std == tuple(config.std)
    assert how.interpolation == config.interpolation
    assert how.crop_fraction == config.crop_pct
    assert how.size == tuple(config.input_size[1:])
