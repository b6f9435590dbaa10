"""Convolutions as matrix products, and pooling with a ceiling."""

from __future__ import annotations

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from counting import operations

from ltx_jax.models.convolution import Convolution, convolve_as_products
from ltx_jax.models.layers import activate, max_pool, mean_over_positions

CASES = [
    # kernel, strides, padding, input channels, output channels, groups, side, dilation
    (3, 1, ((1, 1), (1, 1)), 4, 6, 1, 9, 1),
    (3, 2, ((1, 1), (1, 1)), 64, 8, 1, 5, 1),  # few positions: gathered patches
    (7, 2, ((3, 3), (3, 3)), 3, 5, 1, 16, 1),
    (3, 2, "SAME", 4, 4, 1, 8, 1),
    (3, 2, "VALID", 3, 4, 1, 10, 1),
    (1, 1, ((0, 0), (0, 0)), 5, 7, 1, 4, 1),
    (3, 2, ((1, 1), (1, 1)), 6, 6, 6, 7, 1),
    (3, 1, ((2, 2), (2, 2)), 4, 6, 1, 9, 2),
    (3, 2, "SAME", 6, 6, 6, 9, 2),
    (3, 1, ((1, 1), (1, 1)), 4, 4, 4, 7, 1),
    (3, 2, "VALID", 4, 4, 4, 10, 1),
    (5, 3, ((0, 1), (2, 0)), 4, 4, 4, 11, 1),
]


@pytest.mark.parametrize("case", CASES)
def test_products_are_convolutions(case):
    kernel, stride, padding, channels, features, groups, side, dilation = case
    size = {"kernel_size": (kernel, kernel), "strides": (stride, stride)}
    plain = Convolution(features, **size, padding=padding, groups=groups, dilation=dilation)
    products = plain.clone(as_products=True)
    x = jax.random.normal(jax.random.key(0), (2, 3, side, side, channels))
    weights = jax.vmap(lambda key: plain.init(key, x[0]))(jax.random.split(jax.random.key(1), 2))

    def by_xla(weights, x):
        kernel, bias = weights["params"]["kernel"], weights["params"]["bias"]
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        return y + bias[None, None, None]

    def loss(apply, weights, x):
        y = jax.vmap(apply)(weights, x)
        return jnp.sin(y).sum(), y

    ours, theirs = (
        jax.value_and_grad(loss, argnums=(1, 2), has_aux=True)(apply, weights, x)
        for apply in (products.apply, by_xla)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators have their own order")
def test_products_are_added_up_one_after_another():
    # To the last bit: every input channel in turn, then every offset of the kernel.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 1, 32, 32, 3)).astype(np.float32)
    kernel = rng.normal(size=(2, 7, 7, 3, 16)).astype(np.float32)
    how = {"strides": (1, 1), "padding": "VALID", "groups": 1}
    ours = jax.jit(jax.vmap(lambda x, kernel: convolve_as_products(x, kernel, **how)))(x, kernel)
    total = np.zeros(ours.shape, np.float32)
    for i, j in np.ndindex(7, 7):
        product = np.zeros_like(total)
        for c in range(3):
            one = np.float64(x[:, :, i : i + 26, j : j + 26, c, None])
            product = np.float32(product + one * kernel[:, None, None, None, i, j, c])
        total += product
    np.testing.assert_array_equal(ours, total)


def test_only_depthwise_convolutions_are_grouped():
    x = jnp.ones((1, 4, 4, 4))
    with pytest.raises(ValueError, match="depthwise"):
        Convolution(4, groups=2, as_products=True).init(jax.random.key(0), x)


def test_the_last_window_may_hang_over():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert max_pool(x, 3, 2, "VALID").reshape(-1).tolist() == [10]
    assert max_pool(x, 3, 2, "VALID", ceil_mode=True).reshape(-1).tolist() == [10, 11, 14, 15]


@pytest.mark.parametrize(
    "window, stride, pad, side", [(3, 2, 1, 9), (3, 2, 0, 8), (2, 2, 0, 7), (3, 1, 1, 5)]
)
def test_a_pool_and_its_gradient_are_those_of_xla(window, stride, pad, side):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-2, 3, (2, side, side, 3)), jnp.float32)  # many ties
    pads = ((pad, pad), (pad, pad))

    def xla(x):
        return flax.linen.max_pool(x, (window, window), (stride, stride), pads)

    weights = jnp.asarray(rng.normal(size=xla(x).shape), jnp.float32)
    ours, theirs = (
        jax.value_and_grad(lambda x, pool=pool: (pool(x) * weights).sum())(x)
        for pool in (lambda x: max_pool(x, window, stride, pads), xla)
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        (3, 1, ((1, 1), (1, 1)), 1),
        (11, 4, ((2, 2), (2, 2)), 1),
        (3, 2, "SAME", 1),
        (3, 2, "VALID", 1),
        (3, 1, ((2, 2), (2, 2)), 2),
        (1, 1, "VALID", 1),
        (1, 2, ((0, 0), (0, 0)), 1),
        (5, 3, ((0, 1), (2, 0)), 1),
    ],
)
@pytest.mark.parametrize("features", [4, 200])  # 200 are more than the positions
def test_gradients_of_a_convolution_are_jax_s(kernel, stride, padding, dilation, features):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 13, 12, 3)), jnp.float32)
    module = Convolution(
        features, (kernel,) * 2, (stride,) * 2, padding, use_bias=False, dilation=dilation
    )
    weights = jnp.asarray(rng.normal(size=(kernel, kernel, 3, features)), jnp.float32)

    def ours(x, weights):
        return module.apply({"params": {"kernel": weights}}, x)

    def jaxs(x, weights):
        how = {"rhs_dilation": (dilation,) * 2, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(x, weights, (stride,) * 2, padding, **how)

    (y, back), (expected, back_again) = jax.vjp(ours, x, weights), jax.vjp(jaxs, x, weights)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    coming = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    for found, known in zip(jax.jit(back)(coming), jax.jit(back_again)(coming), strict=True):
        np.testing.assert_allclose(found, known, atol=2e-4)


def test_half_precision_is_added_up_in_single():
    """Of few positions: what each of nine offsets gives is rounded once, after their sum."""
    rng = np.random.default_rng(0)
    x, coming = (jnp.asarray(rng.normal(size=(1, 7, 7, n)), jnp.bfloat16) for n in (32, 64))
    # Whole eighths, which half precision does not round.
    weights = jnp.asarray(rng.integers(-16, 17, (3, 3, 32, 64)) / 8, jnp.float32)

    def gradient(dtype):
        module = Convolution(64, padding=((1, 1), (1, 1)), use_bias=False, dtype=dtype)
        given = {"params": {"kernel": weights}}
        _, back = jax.vjp(lambda x: module.apply(given, x), x.astype(dtype))
        return back(coming.astype(dtype))[0]

    half, exact = gradient(jnp.bfloat16), gradient(jnp.float32)
    error = np.abs(half.astype(np.float32) - exact) / np.abs(exact).mean()
    assert half.dtype == jnp.bfloat16 and np.median(error) < 2e-3


def test_a_depthwise_convolution_in_half_precision():
    """Added up in float32 as well, so that nine equal terms stay what they are."""
    x = jnp.full((1, 5, 5, 3), 1.0078125, jnp.bfloat16)  # the next after 1
    weights = jnp.ones((3, 3, 1, 3), jnp.float32)
    module = Convolution(3, groups=3, use_bias=False, dtype=jnp.bfloat16)
    y, back = jax.vjp(lambda x: module.apply({"params": {"kernel": weights}}, x), x)
    np.testing.assert_array_equal(y.astype(np.float32), np.float32(jnp.bfloat16(9.0703125)))
    (slope,) = back(jnp.ones_like(y))
    np.testing.assert_array_equal(slope[0, :, 0, 0].astype(np.float32), [1, 2, 3, 2, 1])


def test_the_mean_over_positions():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.bfloat16)
    found = mean_over_positions(x)
    assert found.dtype == jnp.float32 and mean_over_positions(x[:0]).shape == (0, 5)
    np.testing.assert_allclose(found, np.float32(x).mean((1, 2)), atol=1e-6)
    slope = jax.grad(lambda x: mean_over_positions(x)[0, 1])(x.astype(jnp.float32))
    np.testing.assert_allclose(slope[0, :, :, 1], 1 / 12, rtol=1e-6)
    assert float(jnp.abs(slope).sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("backward", "expected"),
    [
        ("true", [0, 0, 2, -1]),
        ("guided", [0, 0, 2, 0]),
        # Slopes of the lines from the references: (0 - 1) / -3, 0, (3 - 0) / 4, 1.
        ("rescaled", [2 / 3, 0, 3 / 2, -1]),
    ],
)
def test_gradients_go_back_by_their_rule(backward, expected):
    x = jnp.array([[-2.0, -1, 3, 1], [1, -3, -1, 2]])
    coming = jnp.array([2.0, -1, 2, -1])
    y, back = jax.vjp(jax.vmap(lambda x: activate(x, backward)), x)
    np.testing.assert_array_equal(y, jnp.maximum(x, 0))
    np.testing.assert_allclose(back(jnp.stack([coming, 0 * coming]))[0][0], expected, rtol=1e-6)


def test_a_reference_at_the_same_place_leaves_the_tangent():
    x = jnp.array([[1.0, -1, 7], [1, -1, 7]])
    rescaled = jax.vmap(lambda x: activate(x, "rescaled", flax.linen.relu6))
    _, back = jax.vjp(rescaled, x)
    np.testing.assert_array_equal(back(jnp.ones_like(x))[0][0], [1, 0, 0])
    with pytest.raises(ValueError, match="3 activations side by side: one and its reference"):
        rescaled(jnp.concatenate([x, x[:1]]))


@pytest.mark.parametrize("dilation", [4, 6, 9])
def test_offsets_that_fall_beside_the_map_are_not_multiplied(dilation):
    """Of nine products with all positions those that lie on a map of 7×9 are left: the middle, and
    of each other offset as many rows and columns as the map has beyond it."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 9, 5)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 5, 4)), jnp.float32)
    how = {"padding": ((dilation, dilation),) * 2, "dilation": dilation, "use_bias": False}

    def ours(x, kernel):
        return Convolution(4, **how).apply({"params": {"kernel": kernel}}, x)

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            *(x, kernel, (1, 1), how["padding"]),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    np.testing.assert_allclose(ours(x, kernel), plain(x, kernel), atol=2e-5)
    for one, other in zip(
        jax.grad(lambda *given: (ours(*given) ** 2).sum(), (0, 1))(x, kernel),
        jax.grad(lambda *given: (plain(*given) ** 2).sum(), (0, 1))(x, kernel),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-4 * float(jnp.abs(other).max()))
    rows, columns = (max(side - dilation, 0) for side in (7, 9))
    products = (7 + 2 * rows) * (9 + 2 * columns) * 2
    assert operations(ours, x, kernel) == 2 * products * 5 * 4
