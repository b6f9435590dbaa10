"""Explainers to files and back, with a part of them trained."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights
from safetensors.numpy import save_file

from ltx_jax.errors import InputError
from ltx_jax.explainers.leaves import Moments
from ltx_jax.loading.checkpoints import (
    SavedOptimizer,
    digest_of_weights,
    load_optimizer,
    save_explainer,
)
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import architecture
from ltx_jax.settings.sections import LTX
from ltx_jax.weights.files import read_safetensors, to_safetensors
from ltx_jax.weights.state_dict import shapes_of, to_state_dict


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
    for given in (options, {}):
        again = load_explainer(explainee, checkpoint=tmp_path / "lora.safetensors", **given)
        assert again.module == part.module
        assert_same(again.trained, moved)
        assert_same(again.frozen, part.frozen)
    for given, message in (
        (options | {"lora_rank": 4}, "is of 3, and explainer.lora_rank is 4: leave it out"),
        ({"trained": "all"}, "is of lora, and explainer.trained is all: leave it out, or set it"),
    ):
        with pytest.raises(InputError, match=message):
            load_explainer(explainee, checkpoint=tmp_path / "lora.safetensors", **given)


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
        ({"name": "vit", "image_size": 32}, "images \\(32, 32, 3\\), the explainee vit "),
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


# --- What a file says of itself -------------------------------------------------------------------

SIZES = {name: TINY_VIT[name] for name in ("image_size", "patch_size", "width")} | {
    "depth": 2,
    "num_heads": 4,
    "mean": (0.25, 0.5, 0.75),
    "std": (0.5, 1.0, 2.0),
}


def of_ones(side):
    """A classifier of one's own, which is no network that is known by name."""
    return Explainee(lambda _, x: jnp.ones((len(x), 2)), None, (side, side), 2)


def some_weights(path, name, **sizes):
    """Weights of a network drawn without compiling anything."""
    network = architecture(name, **sizes)
    rng, shapes = np.random.default_rng(0), shapes_of(network.module, network.size)
    drawn = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)
    save_file(to_state_dict(drawn, network.table(network.module)), path)
    return path


def with_metadata(path, source, **changes):
    """The file with other metadata; without those that are None."""
    tensors, told = read_safetensors(source)
    told = {name: text for name, text in (told | changes).items() if text is not None}
    path.write_bytes(to_safetensors(tensors, told))
    return path


def test_a_checkpoint_needs_nothing_beside_it(explainee, tmp_path):
    weights = some_weights(tmp_path / "w.safetensors", "vit", **SIZES)
    part = {"activation": "relu", "frozen_blocks": 1}
    made = load_explainer(explainee, "vit", weights=weights, **part, **SIZES)
    save_explainer(tmp_path / "e.safetensors", made)
    for by in (explainee, of_ones(16)):
        again = load_explainer(by, checkpoint=tmp_path / "e.safetensors")
        assert jax.tree.structure(again) == jax.tree.structure(made)
        assert_same(again.trained | again.frozen, made.trained | made.frozen)
        save_explainer(tmp_path / "again.safetensors", again)
        assert (tmp_path / "again.safetensors").read_bytes() == (
            tmp_path / "e.safetensors"
        ).read_bytes()
    told = read_safetensors(tmp_path / "e.safetensors")[1]
    assert told["format"] == "ltx_jax explainer"
    assert (
        json.loads(told["configuration"])["sizes"].items() >= {"depth": 2, "num_heads": 4}.items()
    )
    # What is trained is the choice of whoever goes on.
    whole = load_explainer(explainee, checkpoint=tmp_path / "e.safetensors", frozen_blocks=0)
    assert (whole.module.backbone.frozen_blocks, whole.activation) == (0, "relu")


def test_a_cnn_says_what_it_is(tmp_path):
    weights = some_weights(tmp_path / "w.safetensors", "cifar_resnet20", depth=8)
    made = load_explainer(of_ones(32), "cifar_resnet20", weights=weights, depth=8)
    save_explainer(tmp_path / "e.safetensors", made)
    again = load_explainer(of_ones(32), checkpoint=tmp_path / "e.safetensors")
    assert jax.tree.structure(again) == jax.tree.structure(made)
    assert_same(again.trained | again.frozen, made.trained | made.frozen)
    smaller = load_explainer(of_ones(16), checkpoint=tmp_path / "e.safetensors")
    assert (made.grid(), smaller.grid()) == ((8, 8), (4, 4))
    assert_same(smaller.trained | smaller.frozen, made.trained | made.frozen)
    with pytest.raises(InputError, match=r"images \(32, 32, 3\), the explainee custom "):
        load_explainer(of_ones(16), "cifar_resnet20", weights=weights, depth=8)


def test_the_size_of_images_is_the_explainees(checkpoint):
    larger = load_explainer(of_ones(32), checkpoint=checkpoint)
    assert larger.grid() == (8, 8)
    assert larger.frozen["params/backbone/pos_embed"].shape == (1, 65, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "squeezenet1_1"}, "is of vit, and explainer.name is squeezenet1_1: leave it out"),
        ({"activation": "relu"}, "is of sigmoid, and explainer.activation is relu"),
        ({"name": "vit", "depth": 2}, r"is of 3, and explainer\.sizes\.depth is 2"),
        (
            {"name": "vit", "std": [1, 1, 1]},
            r"is of \(0\.5, 0\.5, 0\.5\), and .*std is \(1, 1, 1\)",
        ),
        ({"name": "vit", "deepth": 3}, "vit has no size 'deepth'"),
    ],
)
def test_what_a_checkpoint_contradicts_is_refused(explainee, checkpoint, options, message):
    with pytest.raises(InputError, match=message) as caught:
        load_explainer(explainee, checkpoint=checkpoint, **options)
    assert "\n" not in str(caught.value)


def test_what_a_checkpoint_says_as_well_may_be_given(explainee, explainer, checkpoint):
    sizes = {name: size for name, size in TINY_VIT.items() if name != "num_classes"}
    given = {"activation": "sigmoid", "mean": [0.5] * 3, "epsilon": None} | sizes
    again = load_explainer(explainee, "vit.some_tag", checkpoint, **given)
    assert jax.tree.structure(again) == jax.tree.structure(explainer)


def test_a_checkpoint_that_does_not_say_it_is_of_the_explainees_network(
    explainee, checkpoint, tmp_path
):
    old = with_metadata(tmp_path / "old.safetensors", checkpoint, configuration=None)
    made = load_explainer(explainee, checkpoint=old, activation="relu")
    assert made.architecture.module == explainee.architecture.with_module(num_classes=0).module
    assert (made.activation, load_explainer(explainee, checkpoint=old).activation) == (
        "relu",
        "sigmoid",
    )
    with pytest.raises(InputError, match="needs an explainer by name"):
        load_explainer(of_ones(16), checkpoint=old)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("[]", "indices"),
        ('{"name": "vit"}', "sizes"),
        ('{"name": "vit", "sizes": 3}', "items"),
        ('{"sizes": {}, "trained": "all"}', "of no network"),
        ('{"name": "vit", "sizes": {}}', "of no network"),
        ('{"name": "vit", "sizes": {}, "trained": "all", "seed": 1}', "unexpected keyword"),
        ('{"name": "vit", "sizes": {}, "trained": "tail"}', "trained is 'tail'"),
        ('{"name": "vit", "sizes": {}, "trained": "all", "activation": "tanh"}', "is 'tanh'"),
        ('{"name": "vit", "sizes": {"width": "a"}, "trained": "all"}', "the size width of vit is"),
        ('{"name": "vit", "sizes": {"std": [0]}, "trained": "all"}', "the mean of vit is"),
        ('{"name": "tiv", "sizes": {}, "trained": "all"}', "unknown model 'tiv'"),
    ],
)
def test_damaged_metadata(explainee, checkpoint, tmp_path, text, message):
    path = with_metadata(tmp_path / "e.safetensors", checkpoint, configuration=text)
    with pytest.raises(InputError, match=message) as caught:
        load_explainer(explainee, checkpoint=path)
    assert "\n" not in str(caught.value)
    steps = with_metadata(tmp_path / "s.safetensors", checkpoint, step="many")
    with pytest.raises(InputError, match="do not tell the steps and the learning rate"):
        load_optimizer(steps, load_explainer(explainee, checkpoint=checkpoint))


def test_weights_that_are_gone_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no weights at .*gone\.safetensors: give the path of a"):
        digest_of_weights(tmp_path / "gone.safetensors")
