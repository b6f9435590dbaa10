"""Explainers to files and back, with a part of them trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights

from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Moments
from ltx_jax.loading.checkpoints import SavedOptimizer, load_optimizer, save_explainer
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.settings.sections import LTX


@pytest.fixture(scope="module")
def checkpoint(explainer, tmp_path_factory):
    """A whole explainer with an optimizer state whose moments are ones and twos."""
    path = tmp_path_factory.mktemp("explainer") / "whole.safetensors"
    ones, twos = (
        {leaf: jnp.full_like(x, value) for leaf, x in explainer.trained.items()} for value in (1, 2)
    )
    save_explainer(path, explainer, optimizer=SavedOptimizer(Moments(ones, twos), 7, 0.5))
    return path


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)


@pytest.mark.parametrize("trained", ["head", "lora"])
def test_a_part_is_trained_from_a_whole_checkpoint(explainee, explainer, checkpoint, trained):
    part = load_explainer(explainee, checkpoint=checkpoint, trained=trained)
    whole = explainer.trained | explainer.frozen
    loaded = part.trained | part.frozen
    updates = {path: leaf for path, leaf in loaded.items() if "/lora_" in path}
    assert_same({path: leaf for path, leaf in loaded.items() if path not in updates}, whole)
    assert bool(updates) == (trained == "lora") and updates.keys() <= part.trained.keys()
    assert all(not leaf.any() for path, leaf in updates.items() if path.endswith("lora_b"))
    assert all(leaf.any() for path, leaf in updates.items() if path.endswith("lora_a"))


def test_updates_of_low_rank_are_kept(explainee, checkpoint, tmp_path):
    options = {"trained": "lora", "lora_rank": 3}
    part = load_explainer(explainee, checkpoint=checkpoint, **options)
    moved = {path: leaf + 0.25 for path, leaf in part.trained.items()}
    save_explainer(tmp_path / "lora.safetensors", part, moved)
    again = load_explainer(explainee, checkpoint=tmp_path / "lora.safetensors", **options)
    assert_same(again.trained, moved)
    assert_same(again.frozen, part.frozen)
    with pytest.raises(InputError, match=r"misshapen: .*lora_a \(16, 3\) instead of \(16, 4\)"):
        load_explainer(explainee, checkpoint=tmp_path / "lora.safetensors", trained="lora")


def test_a_head_resumes_its_share_of_the_moments(explainee, checkpoint):
    head = load_explainer(explainee, checkpoint=checkpoint, trained="head")
    saved = load_optimizer(checkpoint, head)
    assert saved.moments.first.keys() == head.trained.keys()
    assert all((leaf == 2).all() for leaf in saved.moments.second.values())
    assert (saved.step, saved.learning_rate) == (7, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trained": "mask"}, "a mask of its own has no network: use load_mask"),
        ({"trained": "tail"}, "'tail': it is one of mask, all, head"),
        ({"trained": "lora", "lora_rank": 0}, "lora_rank is 0: it must be at least 1"),
        ({"frozen_blocks": 3}, "frozen_blocks 3 of 3: at least one block"),
        ({"activation": "tanh"}, "activation is 'tanh': it is one of sigmoid, relu, softmax, cl"),
        ({"activaton": "relu"}, "explainer.sizes has activaton, .* set explainer.name as well"),
        ({"sizes": {"depth": 2}}, "explainer.sizes has depth"),
        ({"name": "vit", "image_size": 32}, "images of \\(32, 32\\) pixels, the explainee vit of"),
    ],
)
def test_parts_that_cannot_be_trained(explainee, options, message):
    with pytest.raises(InputError, match=message):
        load_explainer(explainee, **options)


def test_options_are_those_of_the_settings(explainee, explainer):
    given = dataclasses.asdict(LTX.explainer)
    assert jax.tree.structure(load_explainer(explainee, **given, seed=3)) == jax.tree.structure(
        explainer
    )
    other = load_explainer(explainee, activation="relu", head_bias=2.5, seed=3)
    assert other.activation == "relu"
    assert other.trained["params/head/mask/bias"].tolist() == [2.5]


def test_a_backbone_of_another_size(explainee, tmp_path):
    sizes = {"depth": 2} | {k: TINY_VIT[k] for k in ("image_size", "patch_size", "width")}
    weights = random_weights(tmp_path / "w.safetensors", "vit", num_heads=4, **sizes)
    other = load_explainer(explainee, "vit", None, weights, num_heads=4, **sizes)
    same = load_explainer(explainee, "vit", weights=weights, sizes=sizes | {"num_heads": 4})
    assert jax.tree.structure(other) == jax.tree.structure(same)
    assert other.module.backbone.depth == 2 and other.module.backbone.num_classes == 0
    assert_same(other.trained, same.trained)


def test_low_rank_is_for_vits(tmp_path):
    weights = random_weights(tmp_path / "w.safetensors", "squeezenet1_1", num_classes=3)
    explainee = load_explainee("squeezenet1_1", weights, num_classes=3)
    with pytest.raises(InputError, match="no ViT, which LoRA is for"):
        load_explainer(explainee, trained="lora")
    with pytest.raises(InputError, match="squeezenet1_1 is no ViT: leave attention at xla"):
        load_explainer(explainee, attention="cudnn")


def test_cudnn_is_for_half_precision(vit_weights):
    with pytest.raises(InputError, match="compute_dtype bfloat16, not for float32 on a"):
        load_explainee("vit", vit_weights, attention="cudnn", **TINY_VIT)
