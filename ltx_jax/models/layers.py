"""Layers that several families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

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


def as_input(images: Array) -> Float[Array, "n H W C"]:
    """Images in [0,1], of bytes or as they are: bytes are smaller on their way to a device."""
    return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


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


def mean_over_positions(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """The mean of each channel, in float32.

    As a product with ones: XLA for CPUs puts all of the convolutions before a sum into one program
    with it, which takes half as long again.
    """
    n, height, width, channels = x.shape
    flat = x.reshape(n, height * width, channels).astype(jnp.float32)
    ones = jnp.ones((n, 1, height * width), jnp.float32)
    return jnp.matmul(ones, flat, precision="highest")[:, 0] / (height * width)


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


def statistics_of(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Of leaves by path those of batch norms' statistics, which move without a gradient."""
    return {path: leaf for path, leaf in leaves.items() if path.startswith(f"{STATISTICS}/")}


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
        """The input with each channel normalised, scaled and shifted."""
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
