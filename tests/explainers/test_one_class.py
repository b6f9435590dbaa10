"""The mask of one class, of an explainer with one for each."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_weights

from ltx_jax.errors import InputError
from ltx_jax.explainers.deeplab import DeepLabHead
from ltx_jax.explainers.head_for import head_for
from ltx_jax.explainers.one_class import OneClass, drawer_of
from ltx_jax.loading.checkpoints import save_explainer
from ltx_jax.loading.explainers import load_explainer, load_mask
from ltx_jax.masks.guided_filter import guided_filter
from ltx_jax.masks.tokens import upsample
from ltx_jax.models.layers import normalised
from ltx_jax.models.registry import architecture


@pytest.fixture(scope="module")
def every(explainee):
    return load_explainer(explainee, classes=5, seed=3)


def test_it_is_that_class_of_all(explainee, explainer, every, images):
    raw = every.draw(every.trained, every.prefix(images))
    assert raw.shape == (7, 5, 4, 4) and drawer_of(explainer) is explainer
    drawer = drawer_of(every)
    assert isinstance(drawer, OneClass)
    for target in (0, 3):
        leaves, prefix = drawer.begin(explainee, images[2], jnp.int32(target))
        alone = drawer.without_trained().draw(leaves, prefix[None])
        # Brought to pixels before any activation, as in NN-Explainer.
        pixels = upsample(raw[2:3, target : target + 1], (16, 16))
        assert drawer.grid() == (16, 16)
        np.testing.assert_allclose(alone, pixels, atol=1e-5)
        assert {path: leaf.shape for path, leaf in leaves.items()} == {
            path: leaf.shape for path, leaf in drawer.trained.items()
        }
    assert leaves["params/head/mask/kernel"].shape == (16, 1)


def test_a_file_says_how_many_classes(explainee, every, tmp_path):
    save_explainer(tmp_path / "every.safetensors", every)
    again = load_explainer(explainee, checkpoint=tmp_path / "every.safetensors")
    assert again.module == every.module and again.classes == 5
    assert repr(again) == "Explainer(vit, masks 4×4 of 5 classes, trained all)"
    for path, leaf in every.trained.items():
        np.testing.assert_array_equal(leaf, again.trained[path])
    with pytest.raises(InputError, match=r"is of 5, and explainer\.classes is 1"):
        load_explainer(explainee, checkpoint=tmp_path / "every.safetensors", classes=1)


@pytest.fixture(scope="module")
def following(explainee, tmp_path_factory):
    """A CNN with a mask for every class that follow the edges of the image."""
    path = random_weights(tmp_path_factory.mktemp("w") / "w.safetensors", "cifar_resnet20", depth=8)
    how = {"classes": 5, "edge_radius": 2, "image_size": 16, "depth": 8, "seed": 3}
    return load_explainer(explainee, "cifar_resnet20", weights=path, **how)


def test_masks_follow_the_edges_of_the_image(explainee, following, images, tmp_path):
    prefix, how = following.prefix(images), following.architecture.preprocessing
    np.testing.assert_allclose(prefix, normalised(images, how.mean, how.std), atol=1e-6)
    raw = 20 * following.draw(following.trained, prefix)
    assert float(raw.max()) > 9 > -9 > float(raw.min())
    wanted = guided_filter(upsample(jnp.clip(raw, -9, 9), (16, 16)), prefix, 2)
    np.testing.assert_allclose(following.at_pixels(raw, prefix), wanted, atol=1e-5)
    plain = replace(following, edge_radius=0)
    np.testing.assert_array_equal(plain.at_pixels(raw, prefix), upsample(raw, (16, 16)))
    # And so does the one class of it.
    every = following.at_pixels(following.draw(following.trained, prefix), prefix)
    leaves, begun = drawer_of(following).begin(explainee, images[2], jnp.int32(3))
    alone = drawer_of(following).draw(leaves, begun[None])
    np.testing.assert_allclose(alone[0, 0], every[2, 3], atol=1e-4)
    # The mask itself begins as all of that, and its own values change it.
    mask = load_mask(explainee, following)
    leaves, begun = mask.begin(explainee, images[2], jnp.int32(3))
    assert mask.grid() == (16, 16) and not np.any(leaves["raw"])
    np.testing.assert_allclose(begun, every[2, 3], atol=1e-4)
    change = jnp.arange(leaves["raw"].size, dtype=jnp.float32).reshape(leaves["raw"].shape)
    drawn = mask.without_trained().draw({"raw": change}, begun[None])
    np.testing.assert_allclose(drawn[0, 0], begun + upsample(change[None], (16, 16))[0], atol=1e-5)
    # A file says so, and whoever loads it may say otherwise.
    save_explainer(tmp_path / "e.safetensors", following)
    assert load_explainer(explainee, checkpoint=tmp_path / "e.safetensors").edge_radius == 2
    assert (
        load_explainer(explainee, checkpoint=tmp_path / "e.safetensors", edge_radius=0).edge_radius
        == 0
    )


def test_only_what_begins_with_the_image_follows_it(explainee):
    for other in ({"classes": 5}, {"classes": 5, "trained": "head"}, {}):
        with pytest.raises(InputError, match=r"edge_radius 2 is for masks of every class"):
            load_explainer(explainee, edge_radius=2, **other)


def test_edges_are_of_what_goes_through_a_sigmoid(explainee, following, tmp_path):
    save_explainer(tmp_path / "e.safetensors", following)
    for other in ({"trained": "head"}, {"edge_radius": 3, "trained": "head"}):
        with pytest.raises(
            InputError, match=r"of a CNN that is trained whole \(trained=all\): set"
        ):
            load_explainer(explainee, checkpoint=tmp_path / "e.safetensors", **other)
    weights = random_weights(tmp_path / "w.safetensors", "cifar_resnet20", depth=8)
    how = {"classes": 5, "edge_radius": 2, "image_size": 16, "depth": 8, "activation": "relu"}
    with pytest.raises(InputError, match="before a sigmoid"):
        load_explainer(explainee, "cifar_resnet20", weights=weights, **how)
    assert repr(following) == (
        "Explainer(cifar_resnet20, masks 4×4 of 5 classes, edges within 2 pixels, trained all)"
    )


def test_on_the_grid_they_are_means_of_pixels(explainee, following, images):
    prefix = following.prefix(images)
    raw = following.draw(following.trained, prefix)
    pixels, cells = following.at_pixels(raw, prefix), following.at_cells(raw, prefix)
    wanted = jax.image.resize(pixels, raw.shape, "linear", antialias=True)
    np.testing.assert_allclose(cells, wanted, atol=1e-6)
    plain = replace(following, edge_radius=0)
    np.testing.assert_array_equal(plain.at_cells(raw, prefix), raw)


def test_its_classes_are_the_explainees(explainee):
    with pytest.raises(InputError, match="masks for 4 classes, and vit has 5: give one of 5, or"):
        load_explainer(explainee, classes=4)


def test_deeplab_reads_maps():
    head = head_for(architecture("resnet50").module, "deeplab", 5)
    assert isinstance(head, DeepLabHead) and head.classes == 5
    with pytest.raises(InputError, match="head=deeplab reads a map of features, and the"):
        head_for(architecture("vit").module, "deeplab", 5)
