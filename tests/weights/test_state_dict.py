"""State dicts to Flax variables: strict both ways."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TINY_VIT
from safetensors.numpy import load_file, save_file

from ltx_jax.errors import InputError
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.models.registry import architecture
from ltx_jax.weights.files import hub_file, read_safetensors
from ltx_jax.weights.state_dict import (
    collapse,
    flatten,
    from_state_dict,
    shapes_of,
    to_state_dict,
    unflatten,
)
from ltx_jax.weights.tables import mobilenet_v2_from_timm
from ltx_jax.weights.vision_transformers import vit_from_transformers


def fill(state, **sizes):
    network = architecture("vit", **(TINY_VIT | sizes))
    shapes = shapes_of(network.module, network.size)
    return from_state_dict(state, network.table(network.module), shapes, "weights")


def test_there_and_back(vit_weights):
    state = load_file(vit_weights)
    network = architecture("vit", **TINY_VIT)
    back = to_state_dict(fill(state), network.table(network.module))
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(back[name], tensor)


def test_every_fault_is_named_in_one_error(vit_weights):
    state = load_file(vit_weights)
    del state["norm.bias"], state["blocks.1.mlp.fc1.bias"]
    state["extra.weight"] = np.zeros(3, np.float32)
    state["head.weight"] = np.zeros((5, 17), np.float32)
    with pytest.raises(InputError) as caught:
        fill(state)
    message = str(caught.value)
    for part in (
        "2 missing: blocks.1.mlp.fc1.bias, norm.bias",
        "1 unexpected: extra.weight",
        "1 misshapen: head.weight (5, 17) instead of (5, 16)",
    ):
        assert part in message
    assert "\n" not in message


def test_names_that_differ_in_a_number_are_one():
    names = [f"blocks.{i}.norm1.bias" for i in (0, 1, 2, 5)] + ["head.bias", "blocks.7.x"]
    assert collapse(names) == ["blocks.{0-2,5}.norm1.bias", "head.bias", "blocks.7.x"]


@pytest.mark.parametrize("prefix", ["vit.", "deit.", ""])
def test_transformers_names(vit_weights, prefix):
    theirs = {}
    for name, tensor in load_file(vit_weights).items():
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                block, leaf = name.split(".")[1], name.split(".")[-1]
                theirs[f"{prefix}encoder.layer.{block}.attention.attention.{part}.{leaf}"] = third
            continue
        for ours, other in (
            ("cls_token", f"{prefix}embeddings.cls_token"),
            ("pos_embed", f"{prefix}embeddings.position_embeddings"),
            ("patch_embed.proj", f"{prefix}embeddings.patch_embeddings.projection"),
            ("blocks.", f"{prefix}encoder.layer."),
            ("attn.proj", "attention.output.dense"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("head.", "classifier."),
        ):
            name = name.replace(ours, other)
        theirs[
            name.replace("norm.", f"{prefix}layernorm.") if name.startswith("norm.") else name
        ] = tensor
    translated = vit_from_transformers(theirs)
    expected = load_file(vit_weights)
    assert translated is not None and translated.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(translated[name], tensor)
    assert vit_from_transformers(expected) is None


def test_timm_names_of_mobilenet():
    network = architecture("mobilenetv2_100")
    names = {name for entry in network.table(network.module) for name in entry.names}
    layers = ["conv_stem", "bn1", "conv_head", "bn2", "classifier"]
    for group, (expansion, _, repeats, _) in enumerate(network.module.groups):
        parts = ("conv_pw", "conv_dw", "conv_pwl") if expansion > 1 else ("conv_dw", "conv_pw")
        norms = [f"bn{i}" for i in range(1, len(parts) + 1)]
        layers += [f"blocks.{group}.{i}.{x}" for i in range(repeats) for x in (*parts, *norms)]
    # The last first: their order in a file says nothing.
    theirs = {f"{layer}.weight": np.array([i]) for i, layer in enumerate(layers)}
    translated = mobilenet_v2_from_timm(dict(reversed(theirs.items())))
    assert translated is not None
    assert set(translated) == {name for name in names if name.endswith("weight")}
    for ours, name in (
        ("features.1.conv.1.weight", "blocks.0.0.conv_pw.weight"),
        ("features.3.conv.3.weight", "blocks.1.1.bn3.weight"),
        ("features.17.conv.0.0.weight", "blocks.6.0.conv_pw.weight"),
        ("features.18.0.weight", "conv_head.weight"),
    ):
        assert translated[ours] is theirs[name]
    assert mobilenet_v2_from_timm(translated) is None


def test_variables_by_path_and_back():
    nested = {"params": {"a": {"kernel": 1, "bias": 2}, "b": 3}, "batch_stats": {"a": {"mean": 4}}}
    paths = flatten(nested)
    assert paths == {"params/a/kernel": 1, "params/a/bias": 2, "params/b": 3} | {
        "batch_stats/a/mean": 4
    }
    assert unflatten(paths) == nested


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.safetensors", None, "no weights at"),
        (f"{'n' * 300}.safetensors", None, "no weights at"),
        ("cut.safetensors", b"\x10\0\0\0\0\0\0\0{", "not a whole safetensors file"),
        ("old.pth", b"x", "tools/convert_weights.py"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_safetensors(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_half_precision_is_widened(tmp_path):
    save_file({"a": np.array([0.5, 2.0], np.float16)}, tmp_path / "h.safetensors")
    tensors, _ = read_safetensors(tmp_path / "h.safetensors")
    assert tensors["a"].dtype == np.float32 and tensors["a"].tolist() == [0.5, 2.0]


def test_offline_says_what_to_download(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_: object) -> None:
        raise hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(InputError) as caught:
        load_explainee("resnet50")
    message = str(caught.value)
    assert "timm/resnet50.a1_in1k/resolve/main/model.safetensors" in message
    assert "config.explainee.weights" in message and "\n" not in message


def test_without_the_hub_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'ltx_jax\[hub\]'"):
        hub_file("timm/resnet50.a1_in1k", "config.explainee.weights")


def test_weights_that_are_not_on_the_hub():
    with pytest.raises(InputError, match=r"squeezenet1_1-b8a52dc0.pth.*tools/convert_weights.py"):
        load_explainee("squeezenet1_1")
