"""Which mask head is put on what features: the only place that says so."""

from __future__ import annotations

from ltx_jax.errors import InputError
from ltx_jax.explainers.deeplab import DeepLabHead
from ltx_jax.explainers.heads import MapHead, MaskHead, TokenHead
from ltx_jax.models.backbone import Backbone

PLAIN, DEEPLAB = "plain", "deeplab"
# By the name of a head and the kind of a backbone's features.
HEADS: dict[tuple[str, str], type[MaskHead]] = {
    (PLAIN, "tokens"): TokenHead,
    (PLAIN, "map"): MapHead,
    (DEEPLAB, "map"): DeepLabHead,
}


def head_for(
    backbone: Backbone, head: str = PLAIN, classes: int = 1, head_bias: float | None = None
) -> MaskHead:
    """The mask head of that name for a backbone's features; see `MaskHead` for the rest.

    Raises:
      InputError: where there is none for such features.
    """
    if (head, backbone.feature_kind) not in HEADS:
        raise InputError(
            f"explainer.head={head} reads a map of features, and the explainer's network gives "
            f"{backbone.feature_kind}: set it to {PLAIN}, or choose a CNN"
        )
    return HEADS[head, backbone.feature_kind](classes, head_bias, backbone.dtype)


def name_of(head: MaskHead) -> str:
    """What `explainer.head` calls it."""
    return next(name for (name, _), kind in HEADS.items() if type(head) is kind)
