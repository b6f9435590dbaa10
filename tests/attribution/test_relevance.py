"""Relevance by hand, through single operations and through a small network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY_VIT, random_weights
from families import small

from ltx_jax.attribution import RIVALS
from ltx_jax.attribution.held_constant import HALVED, LINEAR, constant, patch_relevance
from ltx_jax.attribution.intermediates import gradients
from ltx_jax.attribution.relevance import RELEVANCE
from ltx_jax.attribution.res_lrp import weighted_sum
from ltx_jax.attribution.transformers import computing_by, reading, rolled_out
from ltx_jax.errors import InputError
from ltx_jax.loading.explainees import load_explainee
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.operations import Operations, softmax

OF_ATTENTION = {"raw_attention", "attention_rollout", "generic_attention", "attention_grad_cam"}
OF_RELEVANCE = {"transformer_attribution", "lrp_rollout", "partial_lrp", "full_lrp"}
OF_GRADIENTS = {"legrad", "attn_lrp", "libra_fullgrad_plus", "res_lrp"}
TARGETS = jnp.array([0, 3, 1], jnp.int32)


def pulled(function, relevance, *inputs):
    """What the inputs get of a relevance."""
    inputs = [jnp.asarray(value, jnp.float32) for value in inputs]
    return jax.vjp(function, *inputs)[1](jnp.asarray(relevance, jnp.float32))


def test_positive_contributions_share_the_relevance():
    kernel, bias = [[1, -3], [2, 1], [-1, -2]], [5, 7]
    # Products with x = (1, 2, -1): (1, -3), (4, 2), (1, 2); of the positive ones 6 and 4 in sum.
    found = pulled(RELEVANCE.dense, [[[6, 4]]], [[[1, 2, -1]]], kernel, bias)
    np.testing.assert_allclose(found[0], [[[1, 4 + 2, 1 + 2]]], rtol=1e-5)
    assert not found[1].any() and not found[2].any()


def test_factors_have_half_each():
    # Scores 2·1 + 1·(-1) = 1 and 2·0 + 1·2 = 2, of which each product is a part.
    query, key = [[[[2, 1]]]], [[[[1, -1], [0, 2]]]]
    found = pulled(RELEVANCE.scores, [[[[3, 4]]]], query, key)
    np.testing.assert_allclose(found[0], [[[[3, -1.5 + 2]]]], rtol=1e-5)
    np.testing.assert_allclose(found[1], [[[[3, -1.5], [0, 2]]]], rtol=1e-5)


def test_sums_share_as_their_totals_do():
    # Shares 1/4·8 + 1·2 = 4 and 3/4·8 + 0 = 6, of which 4 and 6 in 10 are given out; the second
    # image's summands share 6/(3-1)·3 = 9 and -3 of it, so 9 and 3 in 12 of 6.
    found = pulled(RELEVANCE.add, [[[8, 2]], [[6, 0]]], [[[1, 2]], [[3, 0]]], [[[3, 0]], [[-1, 0]]])
    np.testing.assert_allclose(found[0], [[[2, 2]], [[4.5, 0]]], rtol=1e-5)
    np.testing.assert_allclose(found[1], [[[6, 0]], [[1.5, 0]]], rtol=1e-5)


def test_pixels_share_by_their_distance_from_the_bounds():
    # x - low·W⁺ - high·W⁻ with bounds 0 and 2: 1·1 + 2·(-1) - 2·(-1) = 1, all of it the first's.
    found = pulled(RELEVANCE.embed, [[[1.0], [0]]], [[[1, 2], [0, 2]]], [[1], [-1]], [9])
    np.testing.assert_allclose(found[0], [[[1, 0], [0, 0]]], atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "gelu"])
def test_other_operations_pass_it_on(name):
    relevance = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    (found,) = pulled(getattr(RELEVANCE, name), relevance, relevance[::-1])
    np.testing.assert_array_equal(found, relevance)


@pytest.mark.parametrize(
    ("summands", "shares"),
    [
        ((1, 3), (1, 3)),  # of one sign: as it is
        ((3, -1), (2 * 6 / 5, -2 / 5)),  # of 2: 2·3 and -1 in 5
        ((1, -1), (0, 0)),
    ],
)
def test_weighted_summands_share_what_is_left(summands, shares):
    found = pulled(weighted_sum, [[[1]]], *([[[summand]]] for summand in summands))
    relevances = [slope.item() * value for slope, value in zip(found, summands, strict=True)]
    np.testing.assert_allclose(relevances, shares, rtol=1e-6)


@pytest.mark.parametrize("by", [RELEVANCE, LINEAR, HALVED, Operations(add=weighted_sum)])
def test_what_is_computed_stays_what_it_is(by, explainee, images):
    found = jax.jit(lambda x: computing_by(explainee, by, "")(x))(images)
    np.testing.assert_allclose(found, jax.jit(explainee)(images), atol=1e-5)


def test_relevance_is_conserved(explainee, images):
    @jax.jit
    def at_tokens(pictures):
        network = computing_by(explainee, RELEVANCE, "")
        return gradients(network, pictures, TARGETS, ["embedding", "blocks"], "")[1]

    found = at_tokens(images[:3])
    np.testing.assert_allclose(found["embedding"].sum((1, 2)), 1, rtol=2e-3)
    np.testing.assert_allclose(found["blocks"].sum((2, 3)), 1, rtol=2e-3)


@pytest.mark.parametrize("add", [jnp.add, weighted_sum])
def test_a_linear_networks_gradient_x_input_is_its_logit(add, explainee, images):
    """Attention constant, and without biases, positions and a class token of its own."""
    bare = ("bias", "pos_embed", "cls_token")
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if path[-1].key in bare else leaf, explainee.params
    )
    unbiased = dataclasses.replace(explainee, params=params)
    by = dataclasses.replace(LINEAR, add=add, softmax=lambda x: constant(softmax(x)))
    maps = jax.jit(lambda x: patch_relevance(unbiased, by, x, TARGETS, ""))
    expected = np.asarray(jax.jit(unbiased)(images[:3]))[range(3), TARGETS]
    found = maps(jnp.asarray(images[:3])).sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_what_is_read_of_the_last_block():
    found = {"attention": jnp.zeros((1, 1, 1, 6, 6)), "features": jnp.zeros((1, 2, 2, 1))}
    np.testing.assert_array_equal(reading(found), [1, 0, 0, 0, 0, 0])
    distilled = found | {"distillation_token": jnp.zeros((1, 1))}
    np.testing.assert_array_equal(reading(distilled), [0.5, 0.5, 0, 0, 0, 0])
    pooled = found | {"pooled": jnp.zeros((1, 1))}
    np.testing.assert_array_equal(reading(pooled), [0, 0, 0.25, 0.25, 0.25, 0.25])


def test_rolling_out_is_the_product_later_blocks_on_the_left():
    mixings = np.random.default_rng(0).random((3, 2, 4, 4)).astype(np.float32)
    row = np.float32([0.5, 0.5, 0, 0])
    expected = row @ (mixings[2] @ mixings[1] @ mixings[0])
    found = rolled_out(jnp.asarray(row), jnp.asarray(mixings))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(OF_ATTENTION | OF_RELEVANCE | OF_GRADIENTS))
def test_other_networks_are_refused_in_a_line(name):
    network, variables, images = small("cifar_resnet20")
    cnn = Explainee(
        network.apply, variables, (16, 16), 4, name="cifar_resnet20", features=network.features
    )
    reason = "has no intermediate 'attention'" if name in OF_ATTENTION else "no vision transformer"
    with pytest.raises(InputError, match=f"cifar_resnet20 .*{reason}") as caught:
        RIVALS[name].maps(cnn, images, jnp.array([1, 2], jnp.int32))
    assert "\n" not in str(caught.value)
    unknown = dataclasses.replace(cnn, features=None)
    with pytest.raises(InputError, match="cifar_resnet20"):
        RIVALS[name].maps(unknown, images, jnp.array([1, 2], jnp.int32))


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        ({"class_token": False, "average_pool": True}, "reads a mean of its patches"),
        ({"distilled": True}, "reads a distillation token as well"),
    ],
)
def test_relevance_has_no_rule_for_what_these_read(structure, reason, images, tmp_path):
    sizes = TINY_VIT | structure
    weights = random_weights(tmp_path / "w.safetensors", "vit", **sizes)
    explainee = load_explainee("vit", weights, **sizes)
    for name in OF_RELEVANCE:
        with pytest.raises(InputError, match=reason):
            RIVALS[name].maps(explainee, jnp.asarray(images[:3]), TARGETS)


def test_half_precision_is_left_for_relevance(vit_weights, explainee, images):
    halved = load_explainee("vit", vit_weights, compute_dtype="bfloat16", **TINY_VIT)
    for name in ("full_lrp", "res_lrp"):
        maps = [
            RIVALS[name].maps(one, jnp.asarray(images[:3]), TARGETS) for one in (halved, explainee)
        ]
        np.testing.assert_array_equal(*maps)
