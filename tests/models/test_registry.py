"""Architectures by name: sizes, what they can do, and functions that are equal by value."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CNNS, FAMILIES, small

from ltx_jax.errors import InputError
from ltx_jax.models.layers import normalised
from ltx_jax.models.registry import architecture
from ltx_jax.weights.state_dict import flatten, shapes_of


@pytest.mark.parametrize("name", FAMILIES)
def test_two_of_the_same_network_are_equal(name):
    ours, other = (architecture(name, num_classes=7, **FAMILIES[name]) for _ in range(2))
    assert ours == other and hash(ours) == hash(other)
    for one, two in ((ours.apply, other.apply), (ours.features, other.features)):
        assert one is not two and one == two and hash(one) == hash(two)
    assert ours.apply != architecture(name, num_classes=8, **FAMILIES[name]).apply
    grey = architecture(name, num_classes=7, mean=[0.5], std=[0.5], **FAMILIES[name])
    assert ours.apply != grey.apply and (ours.channels, grey.channels) == (3, 1)


def test_sizes_from_a_configuration():
    listed = architecture("densenet121", block_config=[2, 2], growth_rate=None, num_classes=None)
    assert listed == architecture("densenet121", block_config=(2, 2))
    assert hash(listed.module)
    with pytest.raises(InputError, match="resnet50 has no size 'depth'"):
        architecture("resnet50", depth=3)
    with pytest.raises(
        InputError, match="unknown model 'resnet51': the nearest names are resnet50"
    ):
        architecture("resnet51")


@pytest.mark.parametrize("name", [*CNNS, "squeezenet1_0", "vgg11", "alexnet"])
def test_a_cnn_takes_images_of_any_size_that_leaves_features(name):
    side = architecture(name).module.smallest
    network = architecture(name, image_size=side)
    assert (network.size, network.module) == ((side, side), architecture(name).module)
    shapes = shapes_of(network.module, network.size)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    _, found = jax.eval_shape(network.features, shapes, image)
    assert found["features"].shape[:3] == (1, 1, 1)
    with pytest.raises(InputError, match=f"image_size of {name} is {side - 1}: it must be at"):
        architecture(name, image_size=side - 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_its_sizes_make_the_same_network(name):
    network = architecture(name, num_classes=0, mean=[0.5], std=[0.25], **FAMILIES[name])
    told = json.loads(json.dumps(network.sizes))
    assert architecture(name, num_classes=0, **told) == network
    module = network.module.clone(dtype=jnp.bfloat16, num_classes=9)
    assert dataclasses.replace(network, module=module).sizes == network.sizes


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": "16"}, "the size width of vit is '16': expected one such as 192"),
        ({"depth": 2.0}, "the size depth of vit is 2.0: expected one such as 12"),
        ({"depth": True}, "the size depth of vit is True"),
        ({"mlp_ratio": float("nan")}, "the size mlp_ratio of vit is nan"),
        ({"qkv_bias": 1}, "the size qkv_bias of vit is 1: expected one such as True"),
        ({"mean": (0.5,)}, r"the mean of vit is \(0.5,\) and its std \(0.5, 0.5, 0.5\): expected"),
        ({"std": (1.0, 0.0, 1.0)}, "and no std of 0"),
        ({"std": (1.0, float("inf"), 1.0)}, "expected numbers, one a channel"),
    ],
)
def test_sizes_of_another_kind(sizes, message):
    with pytest.raises(InputError, match=message):
        architecture("vit", **sizes)
    assert architecture("vit", depth=2, mlp_ratio=3).module.depth == 2
    with pytest.raises(InputError, match=r"block_config of densenet121 is \(2, 'x'\)"):
        architecture("densenet121", block_config=(2, "x"))


@pytest.mark.parametrize("name", FAMILIES)
def test_images_of_one_channel(name):
    network = architecture(name, num_classes=2, mean=(0.5,), std=(0.25,), **FAMILIES[name])
    side = small(name).images.shape[1]
    shapes = shapes_of(network.module, (side, side), network.channels)
    images = jax.ShapeDtypeStruct((3, side, side, 1), jnp.float32)
    assert jax.eval_shape(network.apply, shapes, images).shape == (3, 2)


def test_normalisation_is_by_channel():
    images = np.random.default_rng(0).random((2, 3, 4, 2), np.float32)
    expected = (images - np.float32([0.1, 0.2])) / np.float32([0.5, 0.25])
    np.testing.assert_array_equal(normalised(images, (0.1, 0.2), (0.5, 0.25)), expected)


@pytest.mark.parametrize("name", CNNS)
def test_what_a_cnn_cannot_do(name):
    module = small(name).network.module
    assert module.with_trained(name, 0, 0) == module.with_attention(name, "xla") == module
    assert module.trained_part() == {}
    for call, message in (
        (lambda: module.with_trained(name, 1, 0), "has no blocks to freeze"),
        (lambda: module.with_trained(name, 0, 2), "is no ViT, which LoRA is for"),
        (lambda: module.with_attention(name, "cudnn"), "is no ViT: leave attention at xla"),
    ):
        with pytest.raises(InputError, match=f"{name} {message}"):
            call()


def test_what_a_vit_can_do():
    module = small("vit").network.module
    assert module.for_slots() == module
    made = module.with_trained("vit", 1, 2)
    assert (made.frozen_blocks, made.lora_rank) == (1, 2)
    assert made.trained_part() == {"frozen_blocks": 1, "lora_rank": 2}
    assert module.trained_part() == {"frozen_blocks": 0, "lora_rank": None}
    for count in (-1, 3):
        with pytest.raises(InputError, match=f"frozen_blocks {count} of 3: at least one block"):
            module.with_trained("vit", count, 0)
    with pytest.raises(InputError, match="compute_dtype bfloat16, not for float32 on a"):
        module.with_attention("vit", "cudnn")


@pytest.mark.parametrize("name", FAMILIES)
def test_64_bits_change_nothing(name):
    network, variables, images = small(name)
    expected = jax.jit(network.apply)(variables, images)
    with jax.enable_x64(True):
        leaves = flatten(shapes_of(network.module, images.shape[1:3]))
        assert {leaf.dtype for leaf in leaves.values()} == {jnp.dtype("float32")}
        logits, named = jax.jit(network.features)(variables, np.asarray(images, np.float64), {})
        assert {x.dtype for x in (logits, *named.values())} == {jnp.dtype("float32")}
        np.testing.assert_allclose(logits, expected, atol=1e-5)
