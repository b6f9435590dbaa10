"""Explainers as what draws a mask, in every family."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CNNS, FAMILIES, small

from ltx_jax.explainers.drawer import Drawer
from ltx_jax.explainers.explainer import MaskNetwork, explainer_from, weight_table
from ltx_jax.explainers.head_for import head_for
from ltx_jax.explainers.leaves import join
from ltx_jax.masks.tokens import activate


def small_explainer(name, trained="all", activation="sigmoid"):
    """An explainer on a small backbone, and images for it."""
    network, variables, images = small(name)
    size = images.shape[1:3]
    how = dataclasses.replace(network.preprocessing, size=size)
    backbone = dataclasses.replace(network.with_module(num_classes=0), preprocessing=how)
    module = MaskNetwork(backbone.module, head_for(backbone.module), trained)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    head = shapes["params"]["head"]
    rng = np.random.default_rng(1)
    fresh = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32), head)
    inside = {
        collection: {"backbone": {n: leaves[n] for n in shapes[collection]["backbone"]}}
        for collection, leaves in variables.items()
    }
    inside["params"]["head"] = fresh
    return explainer_from(module, backbone, inside, activation), images


@pytest.mark.parametrize("name", FAMILIES)
def test_a_mask_is_the_head_on_the_features(name):
    explainer, images = small_explainer(name)
    assert isinstance(explainer, Drawer)
    network, variables, _ = small(name)
    _, named = jax.jit(network.features)(variables, images)
    head = join(explainer.trained)["params"]["head"]
    expected = explainer.module.head.apply({"params": head}, named["features"])
    raw = jax.jit(explainer.draw)(explainer.trained, jax.jit(explainer.prefix)(images))
    assert raw.shape == (2, 1, *explainer.grid())
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    masks = jax.jit(explainer.masks)(explainer.trained, images)
    np.testing.assert_allclose(masks, activate(raw[:, 0], "sigmoid"), atol=1e-6)


@pytest.mark.parametrize("trained", ["all", "head"])
@pytest.mark.parametrize("name", ["vit", "cifar_resnet20"])
def test_an_image_begins_with_the_explainers_own_leaves(name, trained, explainee):
    explainer, images = small_explainer(name, trained)
    beginning = explainer.begin(explainee, images[0], jnp.int32(1))
    assert beginning.leaves is explainer.trained
    raw = explainer.draw(beginning.leaves, beginning.prefix[None])
    whole, _ = small_explainer(name)
    expected = whole.draw(whole.trained, whole.prefix(images[:1]))
    np.testing.assert_allclose(raw, expected, atol=1e-5)
    parts = {path.split("/")[1] for path in explainer.trained}
    assert parts == ({"head"} if trained == "head" else {"backbone", "head"})


@pytest.mark.parametrize("name", ["vit", "cifar_resnet20"])
def test_each_slot_draws_with_its_own_leaves(name):
    explainer, images = small_explainer(name)
    bare = explainer.for_slots().without_trained()
    assert bare.trained == {} and bare.grid() == explainer.grid()
    axes = {path: bare.slot_axis(path) for path in explainer.trained}
    others = {path: leaf * 1.25 for path, leaf in explainer.trained.items()}
    slots = {p: jnp.stack([leaf, others[p]], axes[p]) for p, leaf in explainer.trained.items()}
    prefix = explainer.prefix(images)
    together = jax.jit(jax.vmap(bare.draw, in_axes=(axes, 0)))(slots, prefix[:, None])[:, 0]
    for i, leaves in enumerate((explainer.trained, others)):
        alone = jax.jit(explainer.draw)(leaves, prefix[i : i + 1])
        np.testing.assert_allclose(together[i], alone[0], atol=2e-4)


@pytest.mark.parametrize("name", CNNS)
def test_cnns_compute_products_in_slots(name):
    explainer, _ = small_explainer(name)
    assert explainer.for_slots().module.backbone.as_products
    assert not explainer.module.backbone.as_products


def test_two_of_a_kind_share_their_programs():
    (ours, images), (other, _) = small_explainer("vit"), small_explainer("vit")
    assert ours is not other
    assert jax.tree.structure(ours) == jax.tree.structure(other)
    assert hash(jax.tree.structure(ours)) == hash(jax.tree.structure(other))
    draw = jax.jit(lambda explainer, images: explainer.masks(explainer.trained, images))
    for explainer in (ours, other, ours.for_slots()):
        draw(explainer, images)
    assert draw._cache_size() == 1
    draw(small_explainer("vit", activation="relu")[0], images)
    assert draw._cache_size() == 2


@pytest.mark.parametrize("name", FAMILIES)
def test_every_leaf_has_a_name(name):
    explainer, _ = small_explainer(name)
    table = explainer.table()
    assert {entry.path for entry in table} == set(explainer.trained) | set(explainer.frozen)
    assert table == weight_table(explainer.architecture, explainer.module.head)
