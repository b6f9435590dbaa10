"""Named intermediates, what is added to them on their way, and so the gradients at them."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CNNS, FAMILIES, small

from ltx_jax.models.layers import is_bias

OF_ATTENTION = {"attention", "values", "mixed"}
NAMES = {
    "vit": {"embedding", "blocks", *OF_ATTENTION, "class_token", "features"},
    "resnet50": {"stem", *(f"layer{i}" for i in (1, 2, 3, 4)), "features"},
    "cifar_resnet20": {"stem", "layer1", "layer2", "layer3", "features"},
    "densenet121": {"stem", "block1", "block2", "features"},
    "squeezenet1_1": {"stem", *(f"fire{i}" for i in (3, 4, 6, 7, 9, 10, 11, 12)), "features"},
    "mobilenetv2_100": {"stem", *(f"block{i}" for i in range(17)), "features"},
}


@cache
def gradients(name):
    """Intermediates of a small network, and the gradients of its second logits with respect to
    them."""
    network, variables, images = small(name)
    _, found = jax.jit(network.features)(variables, images, {})
    zeros = jax.tree.map(jnp.zeros_like, found)

    def total(added):
        return network.features(variables, images, added)[0][:, 1].sum()

    return jax.tree.map(np.asarray, (found, jax.jit(jax.grad(total))(zeros)))


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_added_changes_nothing(name):
    network, variables, images = small(name)
    plain, fewer = jax.jit(network.features)(variables, images)
    logits, named = jax.jit(network.features)(variables, images, {})
    np.testing.assert_allclose(logits, plain, atol=1e-5)
    biases = {key for key in named if is_bias(key)}
    assert named.keys() == NAMES[name] | {"input"} | biases
    assert fewer.keys() == named.keys() - OF_ATTENTION - biases
    np.testing.assert_allclose(jax.jit(network.apply)(variables, images), plain, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_gradient_is_the_slope_of_what_is_added(name):
    network, variables, images = small(name)
    found, slopes = gradients(name)
    logits = jax.jit(lambda added: network.features(variables, images, added)[0][:, 1].sum())
    rng = np.random.default_rng(1)
    nothing = jax.tree.map(np.zeros_like, found)
    for key, value in found.items():
        direction = slopes[key] + rng.normal(size=value.shape) * np.std(slopes[key])
        direction = direction * (value != 0)  # what a ReLU cut off is at a kink
        # Small beside the intermediate, so that few ReLUs switch; large beside a logit's rounding.
        step = direction.astype(np.float32) * (3e-4 * np.std(value) / (np.std(direction) or 1))
        rise = float(logits(nothing | {key: step}) - logits(nothing | {key: -step})) / 2
        slope = float((slopes[key] * step).sum())
        assert rise == pytest.approx(slope, rel=0.03, abs=3e-5), key


@pytest.mark.parametrize("name", CNNS)
def test_the_gradient_at_features_is_the_classifiers_weights(name):
    found, slopes = gradients(name)
    features = found["features"]
    positions = features.shape[1] * features.shape[2]
    weights = small(name).variables["params"]
    last = next(weights[part] for part in ("fc", "linear", "classifier") if part in weights)
    kernel, bias = np.asarray(last["kernel"])[..., 1], np.asarray(last["bias"])[1]
    expected = np.broadcast_to(kernel.reshape(-1) / positions, features.shape)
    if name == "densenet121":  # a ReLU stands between
        expected = expected * (features > 0)
    if name == "squeezenet1_1":  # a ReLU stands behind, at each position
        expected = expected * (features @ kernel.reshape(-1) + bias > 0)[..., None]
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(slopes["features"], expected, atol=1e-6)


def test_biases_go_by_their_layers():
    found, slopes = gradients("squeezenet1_1")
    weights = small("squeezenet1_1").variables["params"]
    assert {key for key in found if is_bias(key)} == {f"{layer}/bias" for layer in weights}
    bias = np.asarray(weights["fire3_squeeze"]["bias"])
    assert (found["fire3_squeeze/bias"] == bias).all()
    assert (
        found["fire3_squeeze/bias"].shape == slopes["fire3_squeeze/bias"].shape == (2, 15, 15, 16)
    )
    nested, _ = gradients("densenet121")
    layer = jax.tree.map(np.asarray, small("densenet121").variables)
    norm, seen = (layer[kind]["block2_1"]["norm2"] for kind in ("params", "batch_stats"))
    shift = norm["bias"] - seen["mean"] * norm["scale"] / np.sqrt(seen["var"] + 1e-5)
    told = nested["block2_1/norm2/bias"]
    np.testing.assert_allclose(told, np.broadcast_to(shift, told.shape), rtol=1e-5)


@pytest.mark.parametrize(
    "name", sorted({*CNNS} - {"mobilenetv2_100"})
)  # where a ReLU6 cuts off at 6
def test_input_and_biases_make_up_a_logit(name):
    network, variables, images = small(name)
    found, slopes = gradients(name)
    parts = ["input", *(key for key in found if is_bias(key))]
    total = sum((found[key] * slopes[key]).sum((1, 2, 3)) for key in parts)
    last = [variables["params"].get(key, {}) for key in ("fc", "linear", "classifier")]
    if name != "squeezenet1_1":  # whose classifier's bias is at every position
        total += next(np.asarray(layer["bias"])[1] for layer in last if layer)
    logits, _ = jax.jit(network.features)(variables, images)
    np.testing.assert_allclose(total, logits[:, 1], rtol=1e-4, atol=1e-5)


def norm(x, leaves):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * leaves["scale"] + leaves["bias"]


def test_attention_maps_are_those_of_their_blocks():
    found, _ = gradients("vit")
    weights = jax.tree.map(np.asarray, small("vit").variables["params"])
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], weights["blocks"]) for i in (0, 1)]
    blocks, inputs = [*each, weights["last_block"]], [found["embedding"], *found["blocks"][:-1]]
    for block, tokens, maps in zip(blocks, inputs, found["attention"], strict=True):
        dense = block["attention"]["qkv"]
        projected = norm(tokens, block["norm1"]) @ dense["kernel"] + dense["bias"]
        query, key, _ = projected.reshape(2, 17, 3, 2, 8).transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2) / 8**0.5
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        np.testing.assert_allclose(maps, powers / powers.sum(-1, keepdims=True), atol=1e-5)
        np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("frozen", [1, 2])
def test_blocks_in_two_stacks_are_the_same_blocks(frozen):
    network, variables, images = small("vit")
    found, _ = gradients("vit")
    added = {name: 0.01 * np.cos(value) for name, value in found.items()}
    expected = jax.jit(network.features)(variables, images, added)
    module = network.module.with_trained("vit", frozen, 0)
    parts = {"frozen_blocks": slice(0, frozen), "blocks": slice(frozen, 2)}
    leaves = dict(variables["params"])
    stack = leaves.pop("blocks")
    leaves |= {
        name: jax.tree.map(lambda leaf, name=name: leaf[parts[name]], stack)
        for name in module.stacks()
    }
    divided = dataclasses.replace(network, module=module)
    logits, named = jax.jit(divided.features)({"params": leaves}, images, added)
    np.testing.assert_allclose(logits, expected[0], atol=1e-5)
    for name, value in expected[1].items():
        np.testing.assert_allclose(named[name], value, atol=1e-5, err_msg=name)


def test_only_the_class_token_of_the_last_block_is_read():
    found, slopes = gradients("vit")
    assert found["blocks"].shape == slopes["blocks"].shape == (3, 2, 17, 16)
    assert not slopes["features"].any()
    last = slopes["blocks"][-1]
    assert not last[:, 1:].any()
    weights = small("vit").variables["params"]

    def read(token):
        centred = token - token.mean()
        scaled = centred / jnp.sqrt((centred**2).mean() + 1e-6)
        normed = scaled * weights["norm"]["scale"] + weights["norm"]["bias"]
        return normed @ weights["head"]["kernel"][:, 1]

    expected = jax.vmap(jax.grad(read))(found["blocks"][-1][:, 0])
    np.testing.assert_allclose(last[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(
        slopes["class_token"], np.tile(weights["head"]["kernel"][:, 1], (2, 1)), atol=1e-6
    )


@pytest.mark.parametrize("name", ["vit", "cifar_resnet20"])
def test_half_precision_takes_additions_of_any_type(name):
    network, variables, images = small(name, dtype=jnp.bfloat16)
    _, found = jax.jit(network.features)(variables, images, {})
    added = {key: jnp.ones(value.shape, jnp.float32) for key, value in found.items()}
    logits, shifted = jax.jit(network.features)(variables, images, added)
    assert logits.dtype == jnp.float32
    assert {key: x.dtype for key, x in shifted.items()} == {k: x.dtype for k, x in found.items()}
