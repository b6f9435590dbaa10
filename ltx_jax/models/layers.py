"""Layers that several families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ltx_jax.weights.state_dict import flatten, unflatten

# What a network returns beside its logits: named activations. Those nobody reads cost nothing
# under `jit`. Every family gives `features` [n,g,h,c], what a mask head is put on.
Intermediates = dict[str, Array]
# What is added to intermediates on their way, by their names; None where nobody asks for it.
Added = Mapping[str, Array] | None
Padding = str | Sequence[tuple[int, int]]
Activation = Callable[[Array], Array]
# Where Flax keeps what layers tell of themselves, and what is added to it.
_TOLD, _ADDED = "intermediates", "added"


def normalised(
    images: Float[Array | np.ndarray, "n H W C"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "n H W C"]:
    """Images in [0,1] as a network wants them: (image - mean) / std, by channel."""
    images = jnp.asarray(images, jnp.float32)
    return (images - per_channel(mean, images)) / per_channel(std, images)


def per_channel(values: Any, like: Float[Array, "*n c"]) -> Float[Array, "*ones c"]:
    """Values, one a channel, with the axes and the type of an array whose last axis is channels."""
    values = jnp.asarray(values, like.dtype)
    return values.reshape((1,) * (like.ndim - 1) + values.shape)


def plus(value: Array, added: Added, name: str, part: Any = ...) -> Array:
    """An intermediate and what is added to it, if anything is.

    Args:
      value: the intermediate, or a part of it.
      added: by the names of intermediates.
      name: of this one.
      part: which part of the whole the value is, as an index.
    """
    if not added or name not in added:
        return value
    return value + jnp.asarray(added[name], value.dtype)[part]


def tap(out: Intermediates, name: str, value: Array, added: Added) -> Array:
    """The same as `plus` of a whole intermediate, which is put down in `out` as well."""
    out[name] = plus(value, added, name)
    return out[name]


def biased(layer: nn.Module, y: Float[Array, "*n c"], bias: Float[Array, " c"]) -> Array:
    """What a layer has computed, and its bias.

    What that adds at each position [*n,c] is an intermediate of its own, see `with_biases`.
    """
    share = per_channel(bias, y)
    if layer.is_mutable_collection(_TOLD):
        whole = jnp.broadcast_to(share, y.shape)
        share = tap({}, "bias", whole, layer.variables.get(_ADDED))
        layer.sow(_TOLD, "bias", share, init_fn=lambda: None, reduce_fn=lambda _, told: told)
    return y + share


def with_biases(
    network: nn.Module, variables: Mapping[str, Any], inputs: Array, added: Mapping[str, Array]
) -> tuple[Array, Intermediates]:
    """Apply a network; what its biases add is among the intermediates.

    Each goes by the name of its layer, such as `layer1_0/bn1/bias`. A frozen batch norm is a scale
    and a shift, and the shift is its bias.
    """
    to_biases = unflatten({name: value for name, value in added.items() if is_bias(name)})
    answer, told = network.apply({**variables, _ADDED: to_biases}, inputs, added, mutable=(_TOLD,))
    logits, out = answer
    return logits, out | flatten(told.get(_TOLD, {}))


def is_bias(name: str) -> bool:
    """Whether an intermediate of that name is what a layer's bias adds."""
    return name.endswith("/bias")


def precision(dtype: Any) -> Any:
    """A context in which matrix products keep the accuracy their compute type promises.

    GPUs and TPUs round float32 products to fewer bits unless they are told not to.
    """
    exact = jnp.dtype(dtype) == jnp.float32
    return jax.default_matmul_precision("highest" if exact else "default")


def exact_dense(features: int, **how: Any) -> nn.Dense:
    """The last layer of a network: float32 on every device, whatever the compute type."""
    return nn.Dense(features, precision="highest", **how)


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
        shift = [dilation * (k - side // 2) for k, side in zip(place, kernel.shape, strict=False)]
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
    kernel written out.
    """
    return _by_xla(x, kernel, how)


def _forward(x: Array, kernel: Array, how: _How) -> tuple[Array, tuple[Array, Array]]:
    return _by_xla(x, kernel, how), (x, kernel)


def _back(how: _How, seen: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = seen
    _, to_kernel = jax.vjp(lambda kernel: _by_xla(x, kernel, how), kernel)
    to_input = jax.lax.platform_dependent(
        *(x, kernel, gradient),
        cpu=partial(_to_input_written_out, how),
        default=partial(_to_input_by_xla, how),
    )
    return to_input, *to_kernel(gradient)


def _to_input_by_xla(how: _How, x: Array, kernel: Array, gradient: Array) -> Array:
    _, to_input = jax.vjp(lambda x: _by_xla(x, kernel, how), x)
    return to_input(gradient)[0]


def _to_input_written_out(how: _How, x: Array, kernel: Array, gradient: Array) -> Array:
    if kernel.shape[:2] == (1, 1) and gradient.shape[:3] == x.shape[:3]:
        return gradient @ kernel[0, 0].T  # which no kernel is written out for
    pads = []
    reach = _reach(kernel, how.dilation)
    for axis, (low, _) in enumerate(how.padding, start=1):
        spread = how.strides[axis - 1] * (gradient.shape[axis] - 1) + 1
        pads.append((reach[axis - 1] - 1 - low, x.shape[axis] - spread + low))
    return jax.lax.conv_general_dilated(
        gradient,
        jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3)),
        (1, 1),
        pads,
        lhs_dilation=how.strides,
        rhs_dilation=(how.dilation, how.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


_with_gradient_to_input.defvjp(_forward, _back)


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
    height, width = kernel.shape[:2]
    reach = _reach(kernel, dilation)
    pads = _in_pixels(padding, x, reach, strides)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows = (x.shape[1] - reach[0]) // strides[0] + 1
    columns = (x.shape[2] - reach[1]) // strides[1] + 1

    def shifted(i: int, j: int) -> Array:
        i, j = dilation * i, dilation * j
        last_row, last_column = i + (rows - 1) * strides[0] + 1, j + (columns - 1) * strides[1] + 1
        return x[:, i : last_row : strides[0], j : last_column : strides[1]]

    offsets = [(i, j) for i in range(height) for j in range(width)]
    if groups > 1:
        if kernel.shape[2] != 1 or kernel.shape[3] != x.shape[-1]:
            raise ValueError("only depthwise convolutions can be grouped here")
        # Added in float32, as a matrix product's terms are.
        given, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
        terms = [shifted(i, j) * per_channel(kernel[i, j, 0], x) for i, j in offsets]
        return jax.tree.reduce(jnp.add, terms).astype(given)
    few_positions = rows * columns <= x.shape[-1]
    few_inputs = height * width <= 9 and x.shape[-1] < kernel.shape[-1]
    if not (few_positions or few_inputs):
        return jax.tree.reduce(jnp.add, [shifted(i, j) @ kernel[i, j] for i, j in offsets])
    patches = jnp.concatenate([shifted(i, j) for i, j in offsets], axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def max_pool(
    x: Float[Array, "n H W c"], window: int, stride: int, padding: Padding, ceil_mode: bool = False
) -> Float[Array, "n h w c"]:
    """Max pooling as PyTorch does it; `ceil_mode` lets the last window hang over the edge.

    The gradient of a window goes to its first largest value in reading order. Written out along
    each axis, since XLA's own gradient is several times as slow on a CPU.
    """
    for axis in (2, 1):
        if isinstance(padding, str):
            low, high = jax.lax.padtype_to_pads((x.shape[axis],), (window,), (stride,), padding)[0]
        else:
            low, high = padding[axis - 1]
        if ceil_mode:
            high += -(x.shape[axis] + low + high - window) % stride
        pads = [(0, 0)] * 4
        pads[axis] = (low, high)
        x = _max_along(jnp.pad(x, pads, constant_values=-jnp.inf), window, stride, axis)
    return x


def avg_pool(x: Float[Array, "n H W c"], window: int) -> Float[Array, "n h w c"]:
    """Means over windows side by side."""
    dims, nothing = (1, window, window, 1), np.zeros((), x.dtype)
    return jax.lax.reduce_window(x, nothing, jax.lax.add, dims, dims, "VALID") / window**2


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_along(x: Array, window: int, stride: int, axis: int) -> Array:
    return reduce(jnp.maximum, _offsets(x, window, stride, axis))


def _offsets(x: Array, window: int, stride: int, axis: int) -> list[Array]:
    """The first, second … value of every window along an axis."""
    windows = (x.shape[axis] - window) // stride + 1
    return [
        jax.lax.slice_in_dim(x, i, i + (windows - 1) * stride + 1, stride, axis)
        for i in range(window)
    ]


def _max_along_forward(
    x: Array, window: int, stride: int, axis: int
) -> tuple[Array, tuple[Array, Array]]:
    y = _max_along(x, window, stride, axis)
    return y, (x, y)


def _max_along_backward(
    window: int, stride: int, axis: int, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
    x, y = kept
    length = -(-x.shape[axis] // stride)
    # Offset i of window k is element k + i // stride of those with remainder i % stride.
    parts: list[Array | float] = [0.0] * stride
    for i, value in enumerate(_offsets(x, window, stride, axis)):
        first = value == y
        pads = [(0, 0, 0)] * x.ndim
        pads[axis] = (i // stride, length - y.shape[axis] - i // stride, 0)
        share = jax.lax.pad(jnp.where(first, gradient, 0), jnp.zeros((), x.dtype), pads)
        parts[i % stride] += share
        gradient = jnp.where(first, 0, gradient)
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    together = jnp.stack([jnp.broadcast_to(part, shape) for part in parts], axis + 1)
    together = together.reshape(*x.shape[:axis], length * stride, *x.shape[axis + 1 :])
    return (jax.lax.slice_in_dim(together, 0, x.shape[axis], 1, axis).astype(x.dtype),)


_max_along.defvjp(_max_along_forward, _max_along_backward)


# The collection of what batch norms know of their inputs.
STATISTICS = "batch_stats"


class BatchNorm(nn.Module):
    """A batch norm over all axes but the last, frozen as explainees and finetuned explainers have
    it, or in training.

    Frozen it goes by its running statistics, as one scale and one shift, in PyTorch's order: near
    zero the rounding decides on which side of a ReLU a flat region of the image falls, and the
    original's numbers depend on it.

    Attributes:
      training: go by the batch's own mean and variance, over all devices, and move the running ones
        (`STATISTICS`, which must be mutable) a tenth of the way to them.
    """

    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    training: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        shape, exact = (x.shape[-1],), jnp.float32
        mean = self.variable(STATISTICS, "mean", jnp.zeros, shape, exact)
        var = self.variable(STATISTICS, "var", jnp.ones, shape, exact)
        x = x.astype(exact)
        now = (mean.value, var.value)
        if self.training and not self.is_initializing():
            axes = tuple(range(x.ndim - 1))
            now = x.mean(axes), x.var(axes)
            count = x.size // x.shape[-1]
            mean.value = 0.9 * mean.value + 0.1 * now[0]
            var.value = 0.9 * var.value + 0.1 * (count / max(count - 1, 1)) * now[1]
        scale = self.param("scale", nn.initializers.ones, shape, exact)
        scale = scale / jnp.sqrt(now[1] + self.epsilon)
        shift = self.param("bias", nn.initializers.zeros, shape, exact) - now[0] * scale
        return biased(self, x * per_channel(scale, x), shift).astype(self.dtype)


def batch_norm(name: str, dtype: Any, training: bool = False) -> nn.Module:
    """The batch norm of every network here."""
    return BatchNorm(dtype=dtype, training=training, name=name)


# --- Activations, and how a gradient goes back through them ---------------------------------------


def activate(x: Array, backward: str, function: Activation = nn.relu) -> Array:
    """An activation whose gradient follows one of `BACKWARD`; the values are the same by all.

    Args:
      x: what it is of.
      backward: which.
      function: what it is, elementwise.
    """
    return BACKWARD[backward](x, function)


def _true(x: Array, function: Activation) -> Array:
    return function(x)


def _guided(x: Array, function: Activation) -> Array:
    """Guided backpropagation (Springenberg et al. 2015): only what is positive goes back."""
    return _positive_goes_back(function(x))


@jax.custom_vjp
def _positive_goes_back(x: Array) -> Array:
    return x


_positive_goes_back.defvjp(lambda x: (x, None), lambda _, gradient: (nn.relu(gradient),))


@jax.custom_batching.custom_vmap
def _reference(x: Array) -> Array:
    """Under `vmap` over two, the other one of them; itself where the two are the same so far."""
    return x


@_reference.def_vmap
def _the_other(size: int, batched: Sequence[bool], x: Array) -> tuple[Array, bool]:
    """The rule of `vmap`, whose axis is the first.

    Raises:
      ValueError: where there are not two.
    """
    if batched[0] and size != 2:
        raise ValueError(f"{size} activations side by side: one and its reference were expected")
    return (x[::-1] if batched[0] else x), batched[0]


def _rescaled(x: Array, function: Activation) -> Array:
    """DeepLIFT's rescale rule (Shrikumar et al. 2017): of one activation and its reference, two
    under `vmap`, the slope is that of the line between them."""
    y = function(x)
    here, there = jax.lax.stop_gradient(x), _reference(jax.lax.stop_gradient(x))
    apart = jnp.abs(here - there) > 1e-6  # else the line is the tangent
    _, tangent = jax.jvp(function, (here,), (jnp.ones_like(here),))
    rise = function(here) - function(there)
    line = jnp.where(apart, rise / jnp.where(apart, here - there, 1), tangent) * x
    return line + jax.lax.stop_gradient(y - line)


BACKWARD: dict[str, Callable[[Array, Activation], Array]] = {
    "true": _true,
    "guided": _guided,
    "rescaled": _rescaled,
}
