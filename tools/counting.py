"""Arithmetic of a JAX function, counted from the shapes it works on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters import partial_eval


def operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of all matrix products and convolutions, two for a multiply-add.

    Loops of a known length are counted as often as they run; those of an unknown one
    (`jax.lax.while_loop`) once, and what no result depends on not at all. Elementwise work is left
    out: memory bounds it, not arithmetic.

    Args:
      function: traced, not run; all its arguments are arrays or pytrees of them.
      *arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _in_jaxpr(needed)


def _in_jaxpr(jaxpr: Jaxpr) -> int:
    return sum(_in_equation(equation) for equation in jaxpr.eqns)


def _in_equation(equation: JaxprEqn) -> int:
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
    if name.startswith("dot_product_attention_"):  # cuDNN's; its gradient is four products
        n, queries, heads, width = _shape(equation.invars[0])
        products = 2 if "_fwd" in name else 4
        return products * 2 * n * heads * queries * _shape(equation.invars[1])[1] * width
    inner = sum(
        _in_jaxpr(value.jaxpr if isinstance(value, ClosedJaxpr) else value)
        for parameter in parameters.values()
        for value in (parameter if isinstance(parameter, tuple | list) else (parameter,))
        if isinstance(value, ClosedJaxpr | Jaxpr)
    )
    return inner * parameters["length"] if name == "scan" else inner


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _size(equation: JaxprEqn) -> int:
    return math.prod(_shape(equation.outvars[0]))
