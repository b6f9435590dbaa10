"""What names and shapes of a weight file tell of a ViT, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TINY_VIT, random_weights
from safetensors.numpy import load_file, save_file

import ltx_jax
from ltx_jax.errors import InputError
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_mask
from ltx_jax.models.registry import architecture
from ltx_jax.weights.vision_transformers import (
    vit_from_deit3,
    vit_from_torchvision,
    vit_from_transformers,
    vit_sizes,
    vit_structure,
    with_positions_of,
)

PLAIN = {
    "class_token": True,
    "distilled": False,
    "registers": 0,
    "average_pool": False,
    "norm_pooled": False,
    "layer_scale": False,
    "qkv_bias": True,
    "prefix_positions": True,
}
WITHOUT_CLASS = {
    "class_token": False,
    "average_pool": True,
    "norm_pooled": True,
    "registers": 2,
    "layer_scale": True,
    "prefix_positions": False,
    "qkv_bias": False,
}


def test_a_plain_vit_is_told(vit_weights):
    state = load_file(vit_weights)
    assert vit_structure(state) == PLAIN
    # Its 16 channels are no multiple of 64, so that they tell no number of heads.
    assert vit_sizes(state) == {n: s for n, s in TINY_VIT.items() if n != "num_heads"} | {
        "mlp_ratio": 4.0
    }
    assert vit_structure({}) == vit_sizes({}) == {}


def test_another_is_told(tmp_path):
    sizes = TINY_VIT | {"width": 128, "image_size": 20}
    file = random_weights(tmp_path / "w.safetensors", "vit", **sizes, **WITHOUT_CLASS)
    state = load_file(file)
    assert vit_structure(state) == PLAIN | WITHOUT_CLASS
    assert vit_sizes(state) == sizes | {"mlp_ratio": 4.0}
    loaded = load_explainee("vit", file).architecture
    assert loaded.module == architecture("vit", **sizes, **WITHOUT_CLASS).module
    assert loaded.size == (20, 20)


def test_what_is_given_is_not_told(vit_weights):
    given = {"num_heads": 4, "average_pool": True, "depth": None}
    module = load_explainee("vit", vit_weights, **given).architecture.module
    assert (module.num_heads, module.averaged, module.depth) == (4, True, 3)


@pytest.mark.slow
def test_an_explanation_without_a_class_token(tmp_path):
    file = random_weights(tmp_path / "w.safetensors", "vit", **TINY_VIT, **WITHOUT_CLASS)
    explainee = load_explainee("vit", file, num_heads=2)
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    mask = load_mask(explainee, "gradient_x_input", grid=4)
    result = ltx_jax.explain(explainee, images, explainer=mask, steps=2, slots=2)
    assert np.isfinite(result.masks).all() and np.ptp(result.masks) > 0


def test_positions_fit_or_are_left(vit_weights):
    state, module = load_file(vit_weights), architecture("vit", **TINY_VIT).module
    assert with_positions_of(state, module) is state
    larger = with_positions_of(state, module.clone(image_size=24))["pos_embed"]
    assert larger.shape == (1, 37, 16) and larger.dtype == np.float32
    np.testing.assert_array_equal(larger[:, 0], state["pos_embed"][:, 0])
    odd = state | {"pos_embed": state["pos_embed"][:, :12]}
    assert with_positions_of(odd, module) is odd


@pytest.mark.parametrize(
    ("changes", "sizes", "message"),
    [
        ({}, {}, "a width of 16, which is no multiple of 64 .*: give num_heads"),
        ({"pos_embed": (1, 12, 16)}, {"num_heads": 2}, r"pos_embed \(1, 12, 16\) instead of"),
        ({"cls_token": None}, {"num_heads": 2}, r"misshapen: pos_embed \(1, 17, 16\)"),
        ({"dist_token": (1, 1, 16)}, {"num_heads": 2}, "missing: head_dist.weight"),
        (
            {"dist_token": (1, 1, 16), "cls_token": None},
            {"num_heads": 2},
            "vit is distilled, but has no class token",
        ),
        ({"blocks.0.ls1.gamma": (16,)}, {"num_heads": 2}, r"missing: blocks.\{1-2\}.ls1.gamma"),
        ({"norm_pre.weight": (16,)}, {"num_heads": 2}, "1 unexpected: norm_pre.weight"),
        ({}, {"num_heads": 3}, "the width of vit is 16: it must be a multiple of its num_heads"),
        ({}, {"num_heads": 2, "registers": -1}, "registers of vit is -1: it must be at least 0"),
        ({}, {"num_heads": 2, "distilled": True, "average_pool": True}, "vit is distilled, but"),
    ],
)
def test_what_does_not_fit_is_refused(vit_weights, tmp_path, changes, sizes, message):
    state = load_file(vit_weights)
    for name, shape in changes.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = np.zeros(shape, np.float32)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=message) as caught:
        load_explainee("vit", tmp_path / "w.safetensors", **sizes)
    assert "\n" not in str(caught.value)


def test_a_file_of_transformers_may_lack_a_tensor():
    whole = {
        f"encoder.layer.0.attention.attention.{part}.bias": np.full(2, k, np.float32)
        for k, part in enumerate(("query", "key", "value"))
    }
    (merged,) = vit_from_transformers(whole).values()
    assert merged.tolist() == [0, 0, 1, 1, 2, 2]
    del whole["encoder.layer.0.attention.attention.key.bias"]
    assert vit_from_transformers(whole) == {}  # whose strict reading names what is missing


def test_dialects_leave_timms_names(vit_weights):
    state = load_file(vit_weights)
    assert vit_from_torchvision(state) is None and vit_from_deit3(state) is None
    renamed = vit_from_deit3({"blocks.0.gamma_1": state["norm.bias"], "a.gamma_2.x": None})
    assert renamed == {"blocks.0.ls1.gamma": state["norm.bias"], "a.gamma_2.x": None}
