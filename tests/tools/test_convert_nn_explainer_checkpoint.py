"""Checkpoints of NN-Explainer: both networks from PyTorch, and what is no such checkpoint."""

from __future__ import annotations

import json
import sys

import convert_nn_explainer_checkpoint as tool
import jax
import ml_dtypes
import numpy as np
import pytest

from ltx_jax.errors import InputError
from ltx_jax.explainers.deeplab import DeepLabHead
from ltx_jax.explainers.explainer import MaskNetwork, weight_table
from ltx_jax.models.registry import architecture
from ltx_jax.weights.files import read_safetensors
from ltx_jax.weights.state_dict import from_state_dict, shapes_of, to_state_dict

DEPTHS, CLASSES, HIDDEN = (1, 1, 1, 2), 3, 8
IMAGES = np.random.default_rng(0).normal(0, 1, (2, 48, 40, 3)).astype(np.float32)


def command(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["convert_nn_explainer_checkpoint", *map(str, arguments)])
    return tool.main()


def vgg(prefix="classifier.", without=(), classes=CLASSES, **more):
    """A small VGG's tensors as the original names them."""
    channels = {0: (64, 3), 3: (128, 64), 6: (256, 128), 9: (512, 256), 12: (512, 512)}
    channels[14] = channels[12]
    shapes = {f"feature_extractor.{i}.weight": (*shape, 3, 3) for i, shape in channels.items()}
    shapes |= {f"feature_extractor.{i}.bias": shape[:1] for i, shape in channels.items()}
    for i, shape in {0: (HIDDEN, 512 * 49), 3: (HIDDEN, HIDDEN), 6: (classes, HIDDEN)}.items():
        shapes |= {f"classifier.{i}.weight": shape, f"classifier.{i}.bias": shape[:1]}
    shapes = {name: shape for name, shape in (shapes | more).items() if name not in without}
    return {prefix + name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def deeplab(prefix="explainer.explainer."):
    """A short DeepLabv3's tensors as the original names them."""
    module, table = drawer()
    shapes = shapes_of(module, (32, 32))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    state = to_state_dict(zeros, table)
    return {
        prefix + ("" if name.startswith("classifier.") else "backbone.") + name: tensor
        for name, tensor in state.items()
    }


def drawer():
    """Our network of masks, and its weight table."""
    network = architecture("resnet50", depths=DEPTHS, dilated=(False, True, True), num_classes=0)
    module = MaskNetwork(network.module, DeepLabHead(CLASSES))
    return module, weight_table(network, module.head)


def converted(*parts):
    """Of a checkpoint with these tensors."""
    whole = {name: tensor for part in parts for name, tensor in part.items()}
    return tool.convert({"epoch": 3, "state_dict": whole}, "x")


def test_what_the_explainers_file_says_of_itself():
    filters = {"total_variation_conv.variance_right_filter.weight": np.zeros((1, 1, 3, 3))}
    auxiliary = {"explainer.explainer.aux_classifier.4.bias": np.zeros(CLASSES)}
    found = converted(deeplab(), auxiliary, filters)
    assert found.classifier is None
    assert found.left_out == {"total_variation_conv.": 1, "explainer.explainer.aux_classifier.": 1}
    assert str(found.explainer) == "resnet50 (depths 1, 1, 1, 2) for 3 classes"
    assert found.explainer.metadata["format"] == "ltx_jax explainer"
    told = json.loads(found.explainer.metadata["configuration"])
    sizes = told.pop("sizes")
    assert (sizes["depths"], sizes["dilated"]) == ([1, 1, 1, 2], [False, True, True])
    expected = {"name": "resnet50", "activation": "sigmoid", "trained": "all"}
    assert told == expected | {"head": "deeplab", "classes": 3}
    # What the section of the settings takes makes the same network again.
    module, table = drawer()
    assert architecture("resnet50", **sizes).with_module(num_classes=0).module == module.backbone
    assert list(found.explainer.tensors) == [name for entry in table for name in entry.names]


def test_the_self_explainer_is_an_explainer_alone():
    found = converted(deeplab("model.explainer."))
    assert found.classifier is None and found.explainer.classes == CLASSES


@pytest.mark.parametrize("prefix", ["", "classifier."])
def test_a_classifier_alone(prefix):
    found = converted(vgg(prefix), {"total_variation_conv.weight": np.zeros(1)} if prefix else {})
    assert found.explainer is None and found.classifier.metadata == {}
    assert str(found.classifier) == "vgg16 (depths 1, 1, 1, 1, 2) for 3 classes"
    assert {"features.14.bias", "classifier.6.weight"} <= found.classifier.tensors.keys()
    assert len(found.classifier.tensors) == 18


def test_batch_counters_are_no_weights_and_halves_become_floats():
    state = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in vgg("").items()}
    counter = {"feature_extractor.1.num_batches_tracked": np.array(7)}
    tensors = converted(state, counter).classifier.tensors
    assert {tensor.dtype.name for tensor in tensors.values()} == {"float32"}


BROKEN = {"classifier.feature_extractor.0.bias": np.full(64, np.nan, np.float32)}
WHOLE = {"classifier.feature_extractor.0.bias": np.zeros(64, np.int8)}
RESNET = {
    "feature_extractor.0.weight": np.zeros((64, 3, 7, 7)),
    "feature_extractor.2.weight": np.zeros(1),
    "classifier.weight": np.zeros((CLASSES, 2048)),
    "classifier.bias": np.zeros(CLASSES),
}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "x holds no network of NN-Explainer: expected a Lightning checkpoint with expl"),
        ({"vit.weight": np.zeros(1)}, "x holds no network of NN-Explainer"),
        ({"classifier.0.weight": np.zeros(1)}, "x holds no network of NN-Explainer"),
        (vgg() | {"vit.weight": np.zeros(1)}, "x holds vit.weight beside the networks of"),
        (
            vgg(without=("classifier.6.weight",)),
            "x holds a classifier of a kind that NN-Explainer does not have: expected a VGG-16",
        ),
        (
            vgg(without=("feature_extractor.3.bias",)),
            r"classifier in x does not fit the network \(1 missing: features.3.bias\)",
        ),
        (
            vgg(**{"feature_extractor.16.bias": (512,)}),
            r"classifier in x does not fit the network \(1 unexpected: features.16.bias\)",
        ),
        (
            vgg(**{"feature_extractor.20.weight": (512, 512, 3, 3)}),
            r"classifier in x does not fit the network \(1 unexpected: features.20.weight\)",
        ),
        (vgg(**{"classifier.3.bias": (9,)}), r"1 misshapen: classifier.3.bias \(9,\) instead of"),
        (vgg() | BROKEN, "classifier in x holds values that are no finite numbers, in features.0"),
        (vgg() | WHOLE, "classifier in x is quantised, with int8 in features.0.bias"),
        (vgg(**{"classifier.6.weight": ()}), "x has no classifier.6.weight to tell the width"),
        (
            RESNET,
            r"84 missing: bn1.weight.*; 1 unexpected: feature_extractor.2.weight\): check",
        ),
        (
            {"explainer.explainer.backbone.conv1.weight": np.zeros((64, 3, 7, 7))},
            "x has no classifier.4.weight to tell the width of its layer: fetch it again",
        ),
        (
            {"explainer.explainer.classifier.4.weight": np.zeros((CLASSES, 256, 1, 1))},
            r"the explainer in x does not fit the network \(\d+ missing: ",
        ),
    ],
)
def test_what_is_no_such_checkpoint_is_one_line(state, message):
    with pytest.raises(InputError, match=message) as caught:
        converted(state)
    assert "\n" not in str(caught.value)


def test_two_networks_of_one_checkpoint_have_the_same_classes():
    with pytest.raises(InputError, match="an explainer for 3 classes beside a classifier of 4: ex"):
        converted(deeplab(), vgg(classes=4))


@pytest.mark.parametrize("content", [None, [], {"state_dict": None}, {"state_dict": {"a": 1}}])
def test_files_of_something_else(content):
    with pytest.raises(InputError, match="x holds no network of NN-Explainer"):
        tool.convert(content, "x")


# --- Beside PyTorch -------------------------------------------------------------------------------


class Callback:
    """What Lightning's checkpoints name classes for."""


def small_vgg(parity):
    """The original's VGG-16, shortened; called with images it gives logits."""
    nn, models = parity.torch.nn, parity.torchvision.models
    module = nn.Module()
    layers = [64, "M", 128, "M", 256, "M", 512, "M", 512, 512, "M"]
    module.feature_extractor = nn.Sequential(*models.vgg.make_layers(layers))
    widths = (512 * 49, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)
    first, second, last = (nn.Linear(*width) for width in widths)
    module.classifier = nn.Sequential(
        first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), last
    )
    pool = nn.AdaptiveAvgPool2d(7)
    return module, lambda x: module.classifier(pool(module.feature_extractor(x)).flatten(1))


def small_resnet(parity):
    """The original's ResNet-50, shortened; called with images it gives logits."""
    nn, models = parity.torch.nn, parity.torchvision.models
    module, backbone = nn.Module(), models.resnet.ResNet(models.resnet.Bottleneck, DEPTHS)
    module.feature_extractor = nn.Sequential(*[*backbone.children()][:-1])
    module.classifier = nn.Linear(2048, CLASSES)
    return module, lambda x: module.classifier(module.feature_extractor(x).flatten(1))


def small_deeplab(parity):
    """The original's explainer, shortened, with a second head for training."""
    models = parity.torchvision.models
    backbone = models.resnet.ResNet(
        models.resnet.Bottleneck, DEPTHS, replace_stride_with_dilation=[False, True, True]
    )
    layers = {"layer4": "out", "layer3": "aux"}
    features = models._utils.IntermediateLayerGetter(backbone, layers)
    return models.segmentation.DeepLabV3(
        features,
        models.segmentation.deeplabv3.DeepLabHead(2048, CLASSES),
        models.segmentation.fcn.FCNHead(1024, CLASSES),
    )


def assert_close(found, expected):
    expected = expected.numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, atol=1e-4)


def loaded(path, module, table):
    """Variables from a file."""
    return from_state_dict(read_safetensors(path)[0], table, shapes_of(module, (48, 40)), str(path))


def assert_same_logits(path, theirs, name, **sizes):
    network = architecture(name, num_classes=CLASSES, **sizes)
    variables = loaded(path, network.module, network.table(network.module))
    logits, _ = jax.jit(network.module.apply)(variables, IMAGES)
    assert_close(logits, theirs)


@pytest.mark.parity
@pytest.mark.slow
def test_both_networks_draw_and_classify_as_in_pytorch(tmp_path, monkeypatch, capsys):
    parity = pytest.importorskip("parity_tools")
    torch, nn = parity.torch, parity.torch.nn
    torch.manual_seed(0)
    module, wrapped = nn.Module(), nn.Module()
    wrapped.explainer = small_deeplab(parity)
    module.explainer = wrapped
    module.classifier, classify = small_vgg(parity)
    module.total_variation_conv = nn.Module()
    module.total_variation_conv.variance_right_filter = nn.Conv2d(1, 1, 3, bias=False)
    parity.lively(module)
    lightning = {"epoch": 3, "state_dict": module.state_dict()}
    lightning["callbacks"] = {Callback: {"best_model_score": 1.0}}
    torch.save(lightning, tmp_path / "vgg16_voc.ckpt")
    explainer, classifier = tmp_path / "explainer.safetensors", tmp_path / "vgg16.safetensors"
    targets = f"--explainer={explainer}", f"--classifier={classifier}"
    assert command(monkeypatch, tmp_path / "vgg16_voc.ckpt", *targets) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("explainer: resnet50 (depths 1, 1, 1, 2) for 3 classes, ")
    assert told[1].startswith("classifier: vgg16 (depths 1, 1, 1, 1, 2) for 3 classes, 18 tensors ")
    assert sorted(told[2:]) == [
        "left out: 1 tensors under total_variation_conv.",
        "left out: 7 tensors under explainer.explainer.aux_classifier.",
    ]
    network, x = wrapped.explainer, parity.channels_first(IMAGES)
    with torch.no_grad():
        raw, logits = network.classifier(network.backbone(x)["out"]), classify(x)
    ours, table = drawer()
    assert_close(jax.jit(ours.apply)(loaded(explainer, ours, table), IMAGES), raw)
    assert_same_logits(classifier, logits, "vgg16", depths=(1, 1, 1, 1, 2), hidden=HIDDEN)


@pytest.mark.parity
def test_a_resnet_by_itself_classifies_as_in_pytorch(tmp_path, monkeypatch, capsys):
    parity = pytest.importorskip("parity_tools")
    torch = parity.torch
    torch.manual_seed(0)
    module, classify = small_resnet(parity)
    parity.lively(module)
    torch.save({"epoch": 1, "state_dict": module.state_dict()}, tmp_path / "resnet50.ckpt")
    files = tmp_path / "resnet50.ckpt", f"--classifier={tmp_path / 'resnet50.safetensors'}"
    assert command(monkeypatch, *files, f"--explainer={tmp_path / 'none'}") == 2
    assert command(monkeypatch, files[0]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        f"{files[0]} holds no explainer: leave --explainer out",
        "nothing to write: give --explainer=FILE, --classifier=FILE or both",
    ]
    assert not (tmp_path / "resnet50.safetensors").exists()
    assert command(monkeypatch, *files) == 0
    with torch.no_grad():
        logits = classify(parity.channels_first(IMAGES))
    assert_same_logits(tmp_path / "resnet50.safetensors", logits, "resnet50", depths=DEPTHS)
