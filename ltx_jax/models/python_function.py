"""Any Python function from images to logits as what an explainee applies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ltx_jax.data.given import detached
from ltx_jax.errors import InputError


@dataclass(frozen=True)
class PythonFunction:
    """Calls a function on the host from compiled programs.

    Attributes:
      function: images, a NumPy array float32 [n,H,W,C] in [0,1] that it may write into, to logits
        [n,num_classes]: an array, or a tensor of PyTorch's.
      num_classes: length of the logits.
    """

    function: Callable[[np.ndarray], Any]
    num_classes: int

    def __call__(self, params: None, images: Float[Array, "n H W C"]) -> Float[Array, "n classes"]:
        """Logits of images, under JAX's tracing as well."""
        return _called(self, images)

    def on_host(
        self, images: Float[Array | np.ndarray, "n H W C"]
    ) -> Float[np.ndarray, "n classes"]:
        """What the function gives.

        Raises:
          InputError: where that is not logits of these images.
        """
        logits: np.ndarray = np.asarray(detached(self.function(np.array(images, np.float32))))
        expected = len(images), self.num_classes
        if logits.shape != expected or not np.issubdtype(logits.dtype, np.floating):
            raise InputError(
                f"the function gives {logits.dtype} {logits.shape} for {len(images)} images: "
                f"expected logits, floats {expected}; correct num_classes or the function"
            )
        return logits.astype(np.float32)

    def or_told_later(self, images: Array) -> Float[np.ndarray, "n classes"]:
        """The same as compiled programs call it: where it fails within `failing_plainly`, NaN, and
        what it failed with is kept."""
        try:
            return self.on_host(images)
        except Exception as error:
            if not _LISTENING:
                raise
            for kept in _LISTENING:
                kept.errors.append(error)
            return np.full((len(images), self.num_classes), np.nan, np.float32)


@dataclass(eq=False)
class _Kept:
    errors: list[Exception] = field(default_factory=list)


# Of all calls at the time, whose functions run in whatever thread.
_LISTENING: list[_Kept] = []


@contextmanager
def failing_plainly() -> Iterator[None]:
    """Tell at the end what a Python function failed with: JAX buries it in a page about callbacks.

    Raises:
      InputError: where one failed.
    """
    kept = _Kept()
    _LISTENING.append(kept)
    try:
        yield
    finally:
        _LISTENING.remove(kept)
        if kept.errors:
            raise _told(kept.errors[0]) from kept.errors[0]


def _told(error: Exception) -> InputError:
    if isinstance(error, InputError):
        return InputError(*error.args)
    return InputError(
        f"the function failed on images ({in_one_line(error)}): correct it; it gets as many images "
        "at a time as suits, at least one"
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _called(function: PythonFunction, images: Array) -> Array:
    shape = jax.ShapeDtypeStruct((len(images), function.num_classes), jnp.float32)
    return jax.pure_callback(function.or_told_later, shape, images, vmap_method="sequential")


@_called.defjvp
def _no_gradients(function: PythonFunction, primals: Any, tangents: Any) -> Any:
    raise InputError(
        "a Python function gives no gradients, which this needs: choose a method that needs none, "
        "or write the classifier in JAX"
    )


def in_one_line(error: Exception) -> str:
    """What somebody's function raised, for a message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
