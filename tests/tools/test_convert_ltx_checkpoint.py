"""Checkpoints of the original from PyTorch and back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import convert_ltx_checkpoint as tool
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Moments
from ltx_jax.loading.checkpoints import SavedOptimizer, save_explainer
from ltx_jax.weights.files import read_safetensors
from ltx_jax.weights.torch_archive import read_archive

REFERENCE = Path(__file__).parents[1] / "reference"
ORIGINAL = REFERENCE / "pltx_vit_target_epoch=0_val_epoch_auc=0.ckpt"


def command(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["convert_ltx_checkpoint", *map(str, arguments)])
    return tool.main()


def assert_same(found, given):
    """The same names in the same order, and the same arrays and numbers."""
    if isinstance(given, dict):
        assert list(found) == list(given)
        for name, value in given.items():
            assert_same(found[name], value)
    elif isinstance(given, list):
        assert len(found) == len(given)
        for one, other in zip(found, given, strict=True):
            assert_same(one, other)
    elif isinstance(given, np.ndarray):
        np.testing.assert_array_equal(found, given, strict=True)
    else:
        assert found == given


def assert_of_the_original(found, given):
    """A content of Lightning's that says what the original's does, but for the peak of rates."""
    (schedule,), (theirs,) = found["lr_schedulers"], given["lr_schedulers"]
    assert schedule["last_epoch"] == theirs["last_epoch"]
    assert schedule["_step_count"] == theirs["_step_count"]
    assert schedule["lr_lambdas"] == theirs["lr_lambdas"] and "base_lrs" not in schedule
    (optimizer,), (theirs,) = found["optimizer_states"], given["optimizer_states"]
    assert_same(optimizer, theirs)
    assert_same(
        {n: v for n, v in found.items() if n not in PARTS},
        {n: v for n, v in given.items() if n not in PARTS},
    )


PARTS = ("lr_schedulers", "optimizer_states")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The reference checkpoint back in PyTorch's form, its classifier from a file of its own."""
    folder = tmp_path_factory.mktemp("converted")
    weights = np.load(REFERENCE / "vit_weights.npz")
    names = [name for name in weights.files if name.startswith("explainee/")]
    save_file({n.removeprefix("explainee/"): weights[n] for n in names}, folder / "vit.safetensors")
    with pytest.MonkeyPatch.context() as patched:
        assert command(patched, ORIGINAL, folder / "pltx.safetensors") == 0
        back = "--to-pytorch", f"--explainee={folder / 'vit.safetensors'}"
        assert command(patched, *back, folder / "pltx.safetensors", folder / ORIGINAL.name) == 0
    return folder / ORIGINAL.name


def test_the_originals_checkpoint_comes_back_as_it_was(converted):
    assert_of_the_original(read_archive(converted), read_archive(ORIGINAL))


def test_without_the_classifier_parameters_are_numbered_among_themselves(converted):
    tensors, metadata = read_safetensors(converted.parent / "pltx.safetensors")
    alone = tool.to_pytorch(tensors, metadata, "x", epoch=4)
    whole = read_archive(converted)
    (optimizer,), (expected,) = alone["optimizer_states"], whole["optimizer_states"]
    assert list(optimizer["state"]) == [number - 56 for number in expected["state"]]
    assert optimizer["param_groups"][0]["params"] == [*range(58)]
    assert list(alone["state_dict"]) == list(whole["state_dict"])[56:]
    assert (alone["epoch"], alone["global_step"]) == (4, 3)
    again = tool.convert(alone, "x")
    assert_same(dict(sorted(again.tensors.items())), dict(sorted(tensors.items())))
    assert again.metadata == metadata


def test_what_we_train_becomes_the_originals(explainer, tmp_path, monkeypatch):
    moments = [
        {path: np.full(leaf.shape, value, np.float32) for path, leaf in explainer.trained.items()}
        for value in (1, 2)
    ]
    optimizer = SavedOptimizer(Moments(*moments), 7, 0.25)
    save_explainer(tmp_path / "e.safetensors", explainer, optimizer=optimizer)
    target = tmp_path / "pltx_epoch=27_val_epoch_auc=0.ckpt"
    assert command(monkeypatch, "--to-pytorch", tmp_path / "e.safetensors", target) == 0
    found = read_archive(target)
    assert (found["epoch"], found["global_step"]) == (28, 7)
    (optimizer,) = found["optimizer_states"]
    # All but the first four, its embeddings, which are not trained.
    assert list(optimizer["state"]) == [*range(4, 58)]
    assert optimizer["param_groups"][0]["lr"] == 0.25
    assert all((entry["exp_avg_sq"] == 2).all() for entry in optimizer["state"].values())
    assert command(monkeypatch, target, tmp_path / "again.safetensors") == 0
    ours, again = load_file(tmp_path / "e.safetensors"), load_file(tmp_path / "again.safetensors")
    assert_same(again, ours)
    save_explainer(tmp_path / "fresh.safetensors", explainer)
    content = tool.to_pytorch(*read_safetensors(tmp_path / "fresh.safetensors"), "x")
    assert content["optimizer_states"] == content["lr_schedulers"] == []


def resnet(**more):
    """Some tensors of a ResNet's explainer, as we name them."""
    shapes = {
        "bottleneck.bias": (1,),
        "bottleneck.weight": (1, 2),
        "layer1.10.conv2.weight": (2, 2, 3, 3),
        "layer1.2.bn1.running_mean": (2,),
        "layer1.2.bn1.weight": (2,),
        "layer1.2.conv1.weight": (2, 2, 3, 3),
        "layer4.0.conv1.weight": (2, 2, 3, 3),
        "layer4.0.downsample.0.weight": (2, 2, 1, 1),
    } | more
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def test_a_cnns_tensors_in_the_order_of_its_modules():
    state = tool.to_pytorch(resnet(), {}, "x")["state_dict"]
    encoder = "vit_for_patch_classification.encoder"
    assert [(name, tensor.shape) for name, tensor in state.items()] == [
        (f"{encoder}.4.2.conv1.weight", (2, 2, 3, 3)),
        (f"{encoder}.4.2.bn1.weight", (2,)),
        (f"{encoder}.4.2.bn1.running_mean", (2,)),
        (f"{encoder}.4.10.conv2.weight", (2, 2, 3, 3)),
        (f"{encoder}.7.0.conv1.weight", (2, 2, 3, 3)),
        (f"{encoder}.7.0.downsample.0.weight", (2, 2, 1, 1)),
        ("vit_for_patch_classification.bottleneck.0.weight", (1, 2, 1, 1)),
        ("vit_for_patch_classification.bottleneck.0.bias", (1,)),
    ]


def vit(without=(), **more):
    """Some tensors of a ViT's explainer, as we name them."""
    shapes = {
        "cls_token": (1, 1, 4),
        "pos_embed": (1, 5, 4),
        "patch_embed.proj.weight": (4, 3, 2, 2),
        "blocks.0.attn.qkv.bias": (12,),
        "patch_classifier.weight": (1, 4),
    }
    shapes = {name: shape for name, shape in (shapes | more).items() if name not in without}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


STEPS = {"step": "3", "learning_rate": "0.1"}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {}, "x holds no explainer: expected one mask head"),
        (vit(without=("patch_classifier.weight",)), {}, "holds no explainer"),
        (vit(**{"bottleneck.weight": (1, 4)}), {}, "holds no explainer"),
        (resnet(**{"fc.weight": (3, 2)}), {}, "and no classifier; give what pretraining"),
        (vit(**{"blocks.0.attn.qkv.lora_a": (2, 4)}), {}, "x holds low-rank updates, which the"),
        (vit(**{"reg_token": (1, 2, 4)}), {}, "differs from the original's in registers: give"),
        (vit(without=("cls_token",)), {}, "in class_token, average_pool: give a plain"),
        (vit(**{"blocks.0.ls1.gamma": (4,)}), {}, "differs from the original's in layer_scale"),
        (vit(**{"pos_embed": (1, 4, 4)}), {}, "in prefix_positions"),
        (vit(**{"blocks.0.attn.gate": (4,)}), {}, "0.attn.gate, which no network of"),
        (
            vit(**{"blocks.0.attn.qkv.bias": (13,)}),
            {},
            r"qkv.bias of x has shape \(13,\): expected",
        ),
        ({"features.0.weight": np.ones(2), "bottleneck.weight": np.ones(2)}, {}, "x is of no netw"),
        (resnet(**{"stem.weight": (1,)}), {}, "x holds stem.weight, which no network"),
        (
            resnet() | {"layer1.0.conv1.weight": np.ones(2, np.int8)},
            {},
            "x holds int8 in encoder.4",
        ),
        (vit(), {"configuration": "{"}, "the metadata of x do not tell its network"),
        (
            vit(),
            {
                "configuration": json.dumps(
                    {"name": "vit", "sizes": {}, "trained": "all", "activation": "relu"}
                )
            },
            "x makes masks by relu, which a checkpoint of the original does not tell",
        ),
        (vit(), {"step": "3"}, "the metadata of x do not tell the steps and the learning rate"),
        (vit(**{"exp_avg/cls_token": (1, 1, 4)}), STEPS, "moments of .*cls_token in x do not"),
        (
            vit(**{"exp_avg/cls_token": (1, 1, 4), "exp_avg_sq/cls_token": (1, 4)}),
            STEPS,
            "do not belong to its weights",
        ),
        (
            vit(**{"exp_avg/norm.bias": (4,), "exp_avg_sq/norm.bias": (4,)}),
            STEPS,
            "moments of .*layernorm.bias in x do not belong",
        ),
    ],
)
def test_what_the_original_has_not_is_refused(tensors, metadata, message):
    with pytest.raises(InputError, match=message) as caught:
        tool.to_pytorch(tensors, metadata, "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("explainee", "message"),
    [
        (vit(), "the explainee has no head.weight: give a classifier's weights"),
        ({"features.3.squeeze.weight": np.ones(2)}, "the explainee is of no network"),
        (
            vit(**{"head.weight": (2, 4), "head_dist.weight": (2, 4)}),
            "holds .*head_dist.weight, which no",
        ),
    ],
)
def test_classifiers_that_the_original_has_not(explainee, message):
    with pytest.raises(InputError, match=message):
        tool.to_pytorch(vit(), {}, "x", explainee)


def test_the_command_refuses_in_a_line(tmp_path, monkeypatch, capsys):
    save_file(resnet(), tmp_path / "e.safetensors")
    files = tmp_path / "e.safetensors", tmp_path / "out"
    assert command(monkeypatch, "--explainee=x.safetensors", *files) == 2
    assert command(monkeypatch, "--to-pytorch", "--explainee=none.safetensors", *files) == 2
    assert command(monkeypatch, *files) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "--explainee is written with --to-pytorch alone",
        "no weights at none.safetensors",
        f"{files[0]} is no PyTorch file, or is damaged",
    ]
    assert not files[1].exists()
    assert command(monkeypatch, "--to-pytorch", *files) == 0
    assert capsys.readouterr().out.startswith("8 tensors of the explainer alone (--explainee adds")


# --- Beside PyTorch -------------------------------------------------------------------------------


@pytest.mark.parity
def test_torch_reads_the_originals_checkpoint_as_it_was(converted):
    torch = pytest.importorskip("torch")
    found, given = (torch.load(path, weights_only=True) for path in (converted, ORIGINAL))
    assert found["state_dict"].keys() == given["state_dict"].keys()
    for name, tensor in given["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor), name
    (ours,), (theirs,) = found["optimizer_states"], given["optimizer_states"]
    assert ours["param_groups"] == theirs["param_groups"]
    assert list(ours["state"]) == list(theirs["state"])
    for number, entry in theirs["state"].items():
        assert ours["state"][number]["step"] == entry["step"]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(ours["state"][number][moment], entry[moment])


def of_a_cnn(parity, name):
    """The original's module on a small CNN, after a step of its optimizer, and that."""
    torch, models = parity.torch, parity.torchvision.models
    nn = torch.nn

    def classifier():
        if name == "resnet":
            return models.resnet.ResNet(models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=3)
        return models.DenseNet(8, (2, 11, 2, 2), 16, bn_size=2, num_classes=3)

    module, backbone = nn.Module(), classifier()
    children = [*backbone.children()]
    drawer = nn.Module()
    drawer.encoder = nn.Sequential(*(children[:-2] if name == "resnet" else children[:1]))
    drawer.bottleneck = nn.Sequential(nn.Conv2d(children[-1].in_features, 1, 1))
    module.vit_for_classification_image = classifier().requires_grad_(False)
    module.vit_for_patch_classification = drawer
    parity.lively(module).eval()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.002)
    drawer.bottleneck(drawer.encoder(torch.ones(1, 3, 64, 64))).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_a_cnn_goes_on_in_pytorch(name, tmp_path, monkeypatch):
    parity = pytest.importorskip("parity_tools")
    module, optimizer = of_a_cnn(parity, name)
    torch, state = parity.torch, module.state_dict()
    lightning = {"state_dict": state, "optimizer_states": [optimizer.state_dict()]}
    torch.save(lightning, tmp_path / "theirs.ckpt")
    explainee = module.vit_for_classification_image.state_dict()
    save_file({n: x.numpy() for n, x in explainee.items()}, tmp_path / "explainee.safetensors")
    assert command(monkeypatch, tmp_path / "theirs.ckpt", tmp_path / "e.safetensors") == 0
    back = "--to-pytorch", f"--explainee={tmp_path / 'explainee.safetensors'}"
    assert command(monkeypatch, *back, tmp_path / "e.safetensors", tmp_path / "ours.ckpt") == 0
    found = torch.load(tmp_path / "ours.ckpt", weights_only=True)
    assert list(found["state_dict"]) == [n for n in state if not n.endswith("batches_tracked")]
    other, going_on = of_a_cnn(parity, name)
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(found["state_dict"])
    for key, tensor in other.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    (saved,), theirs = found["optimizer_states"], optimizer.state_dict()
    assert saved["param_groups"][0]["lr"] == 0.002
    assert list(saved["state"]) == list(theirs["state"])
    going_on.load_state_dict(saved)
    for number, entry in theirs["state"].items():
        for part, value in entry.items():
            assert torch.equal(going_on.state_dict()["state"][number][part], value)
