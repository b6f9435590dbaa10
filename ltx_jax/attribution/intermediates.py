"""What rivals read on the way to the logits, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ltx_jax.errors import InputError
from ltx_jax.models.explainee import Explainee, Intermediates, listed
from ltx_jax.models.links import of_class


def shapes_with(
    explainee: Explainee, images: Float[Array, "n H W C"], names: Sequence[str], method: str
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of all intermediates.

    Args:
      explainee, images: as every rival's.
      names: of those that are needed.
      method: what needs them, for the message.

    Raises:
      InputError: where the explainee gives no intermediates, or none of one of these names.
    """
    _, found = jax.eval_shape(lambda: explainee.intermediates(images, {}))
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"{explainee.name} has no intermediate {missing[0]!r}, which {method} needs: it has "
            f"{listed(found)}"
        )
    return found


def seen(
    explainee: Explainee, images: Float[Array, "n H W C"], names: Sequence[str], method: str
) -> tuple[Float[Array, "n classes"], Intermediates]:
    """Logits and intermediates with those named among them.

    Raises:
      InputError: as `shapes_with`.
    """
    shapes_with(explainee, images, names, method)
    return explainee.intermediates(images, {})


def gradients(
    explainee: Explainee,
    images: Float[Array, "n H W C"],
    targets: Int[Array, " n"],
    names: Sequence[str],
    method: str,
) -> tuple[Intermediates, Intermediates]:
    """The intermediates, and of those named what the target's logit sends back to them: its
    gradient, as the explainee's operations have it.

    Raises:
      InputError: as `shapes_with`.
    """
    shapes = shapes_with(explainee, images, names, method)
    nothing = {name: jnp.zeros(shapes[name].shape, shapes[name].dtype) for name in names}

    def target_logits(added: Intermediates) -> tuple[Array, Intermediates]:
        logits, found = explainee.intermediates(images, added)
        return of_class(logits, targets).sum(), found

    slopes, found = jax.grad(target_logits, has_aux=True)(nothing)
    return found, slopes
