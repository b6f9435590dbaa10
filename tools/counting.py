"""Arithmetic of a JAX function, counted from the shapes it works on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters import partial_eval

_FUSED = "dot_product_attention_"


def operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of all matrix products and convolutions, two for a multiply-add.

    Loops of a known length are counted as often as they run; those of an unknown one
    (`jax.lax.while_loop`) once, of several branches the longest, and what no result depends on not
    at all. Elementwise work is left out: memory bounds it, not arithmetic.

    Args:
      function: traced, not run; all its arguments are arrays or pytrees of them.
      *arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _total(products(function, *arguments))


def products(function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[JaxprEqn, int]]:
    """The equations of matrix products, convolutions and fused attention, and how often each runs;
    see `operations`."""
    yield from _in_jaxpr(_needed(jax.make_jaxpr(function)(*arguments).jaxpr), 1)


def _needed(jaxpr: Jaxpr) -> Jaxpr:
    """What its results depend on."""
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return needed


def _in_jaxpr(jaxpr: Jaxpr, times: int) -> Iterator[tuple[JaxprEqn, int]]:
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name.startswith(("dot_general", "conv_general_dilated", _FUSED)):
            yield equation, times
            continue
        if name == "cond":  # of a platform's own code, for one
            branches = (_needed(branch.jaxpr) for branch in parameters["branches"])
            yield from max(([*_in_jaxpr(branch, times)] for branch in branches), key=_total)
            continue
        inside = times * parameters["length"] if name == "scan" else times
        for parameter in parameters.values():
            for value in parameter if isinstance(parameter, tuple | list) else (parameter,):
                if isinstance(value, ClosedJaxpr | Jaxpr):
                    inner = value.jaxpr if isinstance(value, ClosedJaxpr) else value
                    yield from _in_jaxpr(inner, inside)


def _total(found: Iterable[tuple[JaxprEqn, int]]) -> int:
    return sum(times * _in_product(product) for product, times in found)


def _in_product(equation: JaxprEqn) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = _shape(equation.invars[0])
        return 2 * _size(equation) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        # Each output value is a sum over the kernel's window and input features.
        kernel = _shape(equation.invars[1])
        features = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * _size(equation) * math.prod(kernel) // features
    # cuDNN's attention; its gradient is four products.
    n, queries, heads, width = _shape(equation.invars[0])
    count = 2 if "_fwd" in name else 4
    return count * 2 * n * heads * queries * _shape(equation.invars[1])[1] * width


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _size(equation: JaxprEqn) -> int:
    return math.prod(_shape(equation.outvars[0]))
