"""Convolutions, by the code that is fast for them."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ltx_jax.models.layers import Padding, biased, per_channel


class Convolution(nn.Module):
    """A 2-D convolution, channels last.

    Attributes:
      features: output channels.
      kernel_size, strides: (height, width).
      padding: `"VALID"`, `"SAME"` (TensorFlow's) or ((top, bottom), (left, right)) pixels.
      groups: feature groups; the number of input channels for a depthwise convolution, which is
        computed as products always: 15 to 40 times as fast as XLA's own on a CPU.
      use_bias: whether a bias is added.
      dilation: pixels from one of the kernel's offsets to the next.
      dtype: compute type.
      as_products: compute as matrix products. Weights that differ from image to image turn an
        ordinary convolution into a grouped one under `vmap`, ten times slower than products on
        a CPU (https://github.com/jax-ml/jax/issues/26568); shared weights are better off
        without.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "VALID"
    groups: int = 1
    use_bias: bool = True
    dilation: int = 1
    dtype: Any = jnp.float32
    as_products: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n H W c"]) -> Float[Array, "n h w d"]:
        """What the kernel makes of a map of features, of c channels."""
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        kernel = kernel.astype(self.dtype)
        depthwise = 1 < self.groups == x.shape[-1] == self.features
        convolve = convolve_as_products if self.as_products or depthwise else _convolve
        how = self.strides, self.padding, self.groups, self.dilation
        y = convolve(x.astype(self.dtype), kernel, *how)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = biased(self, y, bias)
        return y


class _How(NamedTuple):
    """How a convolution goes: as `Convolution` has it, the padding in pixels."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], ...]
    groups: int
    dilation: int


def _convolve(
    x: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Padding,
    groups: int,
    dilation: int,
) -> Array:
    pads = _in_pixels(padding, x, _reach(kernel, dilation), strides)
    how = _How(strides, pads, groups, dilation)
    if kernel.shape[:2] == strides == (1, 1) and groups == 1 and not np.any(pads):
        return x @ kernel[0, 0]
    if _reaches_outside(x, kernel, how):
        return _within_the_map(x, kernel, dilation)
    return (_by_xla if groups > 1 else _with_gradient_to_input)(x, kernel, how)


def _reach(kernel: Array, dilation: int) -> tuple[int, int]:
    """Pixels from a window's first to its last, down and across."""
    height, width = (dilation * (side - 1) + 1 for side in kernel.shape[:2])
    return height, width


def _in_pixels(
    padding: Padding, x: Array, reach: tuple[int, int], strides: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """A padding as pixels before and after, down and across."""
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], reach, strides, padding)
    return tuple(padding)


def _reaches_outside(x: Array, kernel: Array, how: _How) -> bool:
    """Whether a dilated convolution to a map of the same size multiplies much of the padding, as
    DeepLabv3's do: offsets 12, 24 and 36 pixels apart on a map of 28."""
    same = tuple((how.dilation * (side // 2),) * 2 for side in kernel.shape[:2])
    if how.dilation == 1 or how.strides != (1, 1) or how.groups > 1 or how.padding != same:
        return False
    return all(3 * low > size for (low, _), size in zip(same, x.shape[1:3], strict=True))


def _within_the_map(x: Array, kernel: Array, dilation: int) -> Array:
    """Such a convolution, one product for each of the kernel's offsets, of what lies on the map."""
    size, terms = x.shape[1:3], []
    for place in np.ndindex(*kernel.shape[:2]):
        shift = [
            dilation * (k - side // 2) for k, side in zip(place, kernel.shape[:2], strict=True)
        ]
        if any(abs(by) >= side for by, side in zip(shift, size, strict=True)):
            continue
        rows, columns = (
            slice(max(by, 0), side + min(by, 0)) for by, side in zip(shift, size, strict=True)
        )
        term = jnp.matmul(x[:, rows, columns], kernel[place], preferred_element_type=jnp.float32)
        around = [(max(-by, 0), max(by, 0)) for by in shift]
        terms.append(jnp.pad(term, ((0, 0), *around, (0, 0))))
    return jax.tree.reduce(jnp.add, terms).astype(x.dtype)


def _by_xla(x: Array, kernel: Array, how: _How) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        how.strides,
        how.padding,
        rhs_dilation=(how.dilation, how.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=how.groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_gradient_to_input(x: Array, kernel: Array, how: _How) -> Array:
    """A convolution whose gradient to its input is made for the platform.

    JAX's is a convolution that reads the kernel the other way. Other platforms have code for that,
    and a CPU has none that is fast within a loop, where it takes twice as long as one with the
    kernel written out, or for few positions as one product with the kernel as it is.
    """
    return _by_xla(x, kernel, how)


def _forward(x: Array, kernel: Array, how: _How) -> tuple[Array, tuple[Array, Array]]:
    return _by_xla(x, kernel, how), (x, kernel)


def _back(how: _How, seen: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = seen
    _, to_kernel = jax.vjp(lambda kernel: _by_xla(x, kernel, how), kernel)
    to_input = jax.lax.platform_dependent(
        *(x, kernel, gradient),
        cpu=partial(_to_input_on_cpus, how),
        default=partial(_to_input_by_xla, how),
    )
    return to_input, *to_kernel(gradient)


def _to_input_by_xla(how: _How, x: Array, kernel: Array, gradient: Array) -> Array:
    _, to_input = jax.vjp(lambda x: _by_xla(x, kernel, how), x)
    return to_input(gradient)[0]


def _to_input_on_cpus(how: _How, x: Array, kernel: Array, gradient: Array) -> Array:
    if gradient.shape[1] * gradient.shape[2] <= kernel.shape[3]:
        return _to_input_as_products(how, x, kernel, gradient)
    return jax.lax.conv_general_dilated(
        gradient,
        jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3)),
        (1, 1),
        _padding_back(x, kernel, how, gradient),
        lhs_dilation=how.strides,
        rhs_dilation=(how.dilation, how.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _to_input_as_products(how: _How, x: Array, kernel: Array, gradient: Array) -> Array:
    """One product with the kernel as it is, whose share for each offset is added where that reads:
    for few positions beside the channels, where writing the kernel out takes longer than that."""
    exact = x.astype(np.promote_types(x.dtype, np.float32))
    _, to_input = jax.vjp(lambda x: _read(_padded(x, how), kernel, how), exact)
    every = kernel.reshape(-1, kernel.shape[3]).T
    shares = jnp.matmul(gradient, every, preferred_element_type=exact.dtype)
    offsets = kernel.shape[0] * kernel.shape[1]
    return to_input(jnp.split(shares, offsets, axis=-1))[0].astype(x.dtype)


_with_gradient_to_input.defvjp(_forward, _back)


def _padding_back(x: Array, kernel: Array, how: _How, gradient: Array) -> list[tuple[int, int]]:
    """Of a gradient, its values as far apart as the strides, that the mirrored kernel makes one to
    the input of."""
    pads = []
    reach = _reach(kernel, how.dilation)
    for axis, (low, _) in enumerate(how.padding, start=1):
        spread = how.strides[axis - 1] * (gradient.shape[axis] - 1) + 1
        pads.append((reach[axis - 1] - 1 - low, x.shape[axis] - spread + low))
    return pads


def convolve_as_products(
    x: Float[Array, "n H W c"],
    kernel: Float[Array, "kh kw i d"],
    strides: tuple[int, int],
    padding: Padding,
    groups: int,
    dilation: int = 1,
) -> Float[Array, "n h w d"]:
    """A convolution as matrix products, for weights that `vmap` gives each image its own.

    One product over gathered patches (im2col) where there are few positions beside the channels, or
    fewer inputs than outputs and no more than nine copies of them; otherwise one product per kernel
    offset, which adds up outputs and copies nothing. A depthwise convolution is a sum of
    elementwise products.

    Raises:
      ValueError: for grouped convolutions other than depthwise ones.
    """
    pads = _in_pixels(padding, x, _reach(kernel, dilation), strides)
    how = _How(strides, pads, groups, dilation)
    if groups > 1:
        if kernel.shape[2] != 1 or kernel.shape[3] != x.shape[-1]:
            raise ValueError("only depthwise convolutions can be grouped here")
        return _depthwise(x, kernel[:, :, 0], how)
    height, width, inputs, outputs = kernel.shape
    read = _read(_padded(x, how), kernel, how)
    few_positions = read[0].shape[1] * read[0].shape[2] <= inputs
    few_inputs = height * width <= 9 and inputs < outputs
    if not (few_positions or few_inputs):
        terms = zip(read, kernel.reshape(-1, inputs, outputs), strict=True)
        return jax.tree.reduce(jnp.add, [seen @ weights for seen, weights in terms])
    return jnp.concatenate(read, axis=-1) @ kernel.reshape(-1, outputs)


def _padded(x: Array, how: _How) -> Array:
    pads = [(low, high, 0) for low, high in ((0, 0), *how.padding, (0, 0))]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)


def _read(x: Array, kernel: Array, how: _How) -> list[Array]:
    """What each of the kernel's offsets reads of a padded map, of all windows."""
    windows = [
        (size - reach) // stride + 1
        for size, reach, stride in zip(
            x.shape[1:3], _reach(kernel, how.dilation), how.strides, strict=True
        )
    ]

    def by(place: tuple[int, ...]) -> Array:
        rows, columns = (
            slice(how.dilation * k, how.dilation * k + (count - 1) * stride + 1, stride)
            for k, count, stride in zip(place, windows, how.strides, strict=True)
        )
        return x[:, rows, columns]

    return [by(place) for place in np.ndindex(*kernel.shape[:2])]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: Array, kernel: Array, how: _How) -> Array:
    """A depthwise convolution with a kernel [kh,kw,c].

    Its gradient to the input is one too, of the gradient spread and padded. As the sum that
    differentiation makes of it, each term would have what the gradient is made of computed anew by
    XLA: an activation's gate, and for that the nine terms of this convolution.
    """
    return _sum_of_products(_padded(x, how), kernel, how)


def _sum_of_products(x: Array, kernel: Array, how: _How) -> Array:
    """Of a padded map, added in float32, as a matrix product's terms are."""
    exact = x.astype(np.promote_types(x.dtype, np.float32))
    weights = kernel.reshape(-1, kernel.shape[-1])
    terms = zip(_read(exact, kernel, how), weights, strict=True)
    return jax.tree.reduce(jnp.add, [t * per_channel(w, exact) for t, w in terms]).astype(x.dtype)


def _depthwise_forward(x: Array, kernel: Array, how: _How) -> tuple[Array, tuple[Array, Array]]:
    return _sum_of_products(_padded(x, how), kernel, how), (x, kernel)


def _depthwise_back(how: _How, seen: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = seen
    _, to_kernel = jax.vjp(lambda kernel: _sum_of_products(_padded(x, how), kernel, how), kernel)
    pads = [
        (*pad, stride - 1)
        for pad, stride in zip(_padding_back(x, kernel, how, gradient), how.strides, strict=True)
    ]
    nothing = jnp.zeros((), gradient.dtype)
    spread = jax.lax.pad(gradient, nothing, [(0, 0, 0), *pads, (0, 0, 0)])
    to_input = _sum_of_products(spread, kernel[::-1, ::-1], how._replace(strides=(1, 1)))
    return to_input, *to_kernel(gradient)


_depthwise.defvjp(_depthwise_forward, _depthwise_back)
