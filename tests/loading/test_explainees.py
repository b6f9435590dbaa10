"""Explainees by name, and what two loads of one share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights

from ltx_jax.errors import InputError
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.loading.explainers import load_explainer


@pytest.mark.parametrize(
    ("name", "sizes"), [("vit", TINY_VIT), ("cifar_resnet20", {"depth": 8, "num_classes": 5})]
)
def test_two_loads_share_their_programs(tmp_path, name, sizes):
    files = [random_weights(tmp_path / f"{i}.safetensors", name, seed=i, **sizes) for i in (0, 1)]
    explainees = [load_explainee(name, file, **sizes) for file in files]
    explainers = [load_explainer(explainee) for explainee in explainees]
    for ours, other in (explainees, explainers):
        assert jax.tree.structure(ours) == jax.tree.structure(other)
    side = explainees[0].image_size[0]
    images = jnp.asarray(np.random.default_rng(0).random((2, side, side, 3), np.float32))

    @jax.jit
    def both(explainee, explainer, images):
        return explainee(images), explainer.masks(explainer.trained, images)

    (ours, _), (other, _) = (
        both(explainee, explainer, images)
        for explainee, explainer in zip(explainees, explainers, strict=True)
    )
    assert both._cache_size() == 1
    assert not np.allclose(ours, other)
    explained = jax.jit(lambda explainee, images: explainee.intermediates(images))
    for explainee in explainees:
        explained(explainee, images)
    assert explained._cache_size() == 1


def test_intermediates_are_the_networks(explainee, images):
    logits, found = jax.jit(explainee.intermediates)(images)
    np.testing.assert_allclose(logits, jax.jit(explainee)(images), atol=1e-5)
    assert found["attention"].shape == (3, 7, 2, 17, 17)
    pushed, _ = jax.jit(explainee.intermediates)(
        images, {"class_token": jnp.ones_like(found["class_token"])}
    )
    weights = explainee.params["params"]["head"]["kernel"]
    np.testing.assert_allclose(pushed - logits, np.tile(weights.sum(0), (7, 1)), atol=1e-5)
    with pytest.raises(
        InputError, match="vit has no intermediate 'layer4': it has input, embedding"
    ):
        explainee.intermediates(images, {"layer4": jnp.zeros((1,), jnp.float32)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_dtype": "float16"}, "compute_dtype is 'float16'.*: it is one of float32, bf"),
        ({"attention": "fused"}, "attention is 'fused': it is one of xla, cudnn"),
        ({"class_names": ("a", "b")}, "2 class names for the 5 classes of vit"),
    ],
)
def test_what_cannot_be_loaded(vit_weights, options, message):
    with pytest.raises(InputError, match=message) as caught:
        load_explainee("vit", vit_weights, **options, **TINY_VIT)
    assert "\n" not in str(caught.value)


def test_one_logit_has_the_names_of_two_classes(tmp_path):
    sizes = {**TINY_VIT, "num_classes": 1}
    random_weights(tmp_path / "one.safetensors", "vit", **sizes)
    named = load_explainee("vit", tmp_path / "one.safetensors", class_names=("no", "yes"), **sizes)
    assert named.class_names == ("no", "yes")
    with pytest.raises(InputError, match="1 class names for the 2 classes of vit"):
        load_explainee("vit", tmp_path / "one.safetensors", class_names=("yes",), **sizes)


def test_a_network_whose_logits_are_never_below_zero_is_of_one_class(tmp_path):
    """What it is told before its weights are looked for."""
    with pytest.raises(InputError, match="squeezenet1_1 ends in a ReLU, so that no logit is below"):
        load_explainee("squeezenet1_1", tmp_path / "none.safetensors", link="sigmoid")


def test_64_bits_change_nothing(vit_weights, explainee, explainer, images):
    with jax.enable_x64(True):
        ours = load_explainee("vit", vit_weights, **TINY_VIT)
        network = load_explainer(ours, seed=3)
        leaves = jax.tree.leaves((ours.params, network.trained, network.frozen))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
        logits = jax.jit(ours)(images)
        masks = jax.jit(network.masks)(network.trained, images)
        assert logits.dtype == masks.dtype == jnp.float32
    for path, leaf in explainer.trained.items():
        np.testing.assert_array_equal(network.trained[path], leaf)
    np.testing.assert_allclose(logits, jax.jit(explainee)(images), atol=1e-5)
    np.testing.assert_allclose(
        masks, jax.jit(explainer.masks)(explainer.trained, images), atol=1e-6
    )
