"""Explainers from their names, weight files and checkpoints."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ltx_jax.attribution import RIVALS
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer, MaskNetwork, explainer_from, weight_table
from ltx_jax.explainers.heads import MaskHead, head_for
from ltx_jax.explainers.leaves import TRAINED
from ltx_jax.explainers.mask_itself import MaskItself, cells_for
from ltx_jax.loading.checkpoints import named, read_explainer, with_fresh_updates
from ltx_jax.loading.explainees import computing, fitted, published
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import Architecture, architecture
from ltx_jax.settings.sections import MaskDrawer, Settings, checked
from ltx_jax.weights.state_dict import (
    StateDict,
    Variables,
    from_state_dict,
    shapes_of,
    to_state_dict,
)

# Starts of a mask beside rivals: a bias towards the centre, and an explainer's masks.
CENTRE, PLTX = "centre", "pltx"
_START, _START_WITH_FEATURES = "gradient_x_input", "grad_cam"


def load_explainer(
    explainee: Explainee,
    name: str | None = None,
    checkpoint: str | Path | None = None,
    weights: str | Path | None = None,
    *,
    compute_dtype: str = Settings.compute_dtype,
    attention: str = Settings.attention,
    seed: int = Settings.seed,
    **options: Any,
) -> Explainer:
    """A mask network for an explainee.

    Args:
      explainee: what is to be explained.
      name: timm name of the backbone; None for the explainee's own network.
      checkpoint: an explainer checkpoint (`save_explainer`); None for a fresh mask head, whose
        masks are poor until it is pretrained.
      weights: of the backbone when there is no checkpoint; None for the explainee's own where it
        is the same network, else for the hub.
      compute_dtype: `float32` or `bfloat16`; parameters are float32 either way.
      attention: as for the explainee.
      seed: of a fresh head and fresh updates.
      **options: the other settings of `MaskDrawer` (`activation`, `head_bias`, `trained`,
        `frozen_blocks`, `lora_rank`), with its defaults; and, as they are or as `sizes`, what
        differs from the published network (`image_size`, `depth` …).

    Raises:
      InputError: as `load_explainee`; for an option that is none; or where the image sizes of the
        two differ.
    """
    drawer = _section(name, checkpoint, weights, options)
    backbone = backbone_for(explainee, drawer, compute_dtype, attention)
    given = {*drawer.sizes, "image_size", "num_classes"}
    if drawer.checkpoint is None:
        state, source = _backbone_state(explainee, backbone, drawer.weights)
        backbone, state = fitted(backbone, state, given)
        backbone, module = mask_network(backbone, drawer)
        variables = _with_fresh_head(module, backbone, state, source, seed)
    else:
        state = read_explainer(drawer.checkpoint)
        backbone, state = fitted(backbone, state, given)
        backbone, module = mask_network(backbone, drawer)
        template = shapes_of(module, backbone.size, backbone.channels)
        table = weight_table(backbone, module.head)
        state = with_fresh_updates(state, table, template, seed)
        variables = from_state_dict(state, table, template, named(drawer.checkpoint))
    return explainer_from(module, backbone, variables, drawer.activation)


def load_mask(
    explainee: Explainee, start: str | Explainer | None = None, grid: int | None = None
) -> MaskItself:
    """The mask itself as what is optimised for each image; it needs no weights.

    Args:
      explainee: what is to be explained.
      start: `centre`, a bias towards the centre; the name of a rival, whose relevance orders the
        cells; or an explainer whose masks they are to begin with. If not given,
        `grad_cam` where the explainee gives a map called `features`, else `gradient_x_input`.
      grid: cells along the longer side; of about 8 pixels, 8 to 14, where not given.

    Raises:
      InputError: for an unknown start, a grid beyond the image, or an explainer for another size.
    """
    if isinstance(start, Explainer):
        if grid is not None and max(start.grid()) != grid:
            raise InputError(
                f"explainer.grid is {grid}, the explainer that starts the mask has {start.grid()}: "
                "leave explainer.grid out"
            )
        return MaskItself(start.grid(), network=start)
    cells = cells_for(explainee.image_size, grid)
    name = start or (_START_WITH_FEATURES if _gives_a_map(explainee) else _START)
    if name == CENTRE:
        return MaskItself(cells)
    if name not in RIVALS:
        known = ", ".join((CENTRE, PLTX, *RIVALS))
        raise InputError(f"unknown start {name!r}: there are {known}")
    return MaskItself(cells, RIVALS[name].signed or RIVALS[name].maps)


def _gives_a_map(explainee: Explainee) -> bool:
    """Whether one of its intermediates is a map [n,g,h,c] called `features`."""
    if explainee.features is None:
        return False
    image = jax.ShapeDtypeStruct((1, *explainee.image_shape), jnp.float32)
    _, found = jax.eval_shape(lambda x: explainee.intermediates(x), image)
    return "features" in found and found["features"].ndim == 4


def backbone_for(
    explainee: Explainee, drawer: MaskDrawer, compute_dtype: str, attention: str
) -> Architecture:
    """The network, without a classifier, that a mask network for an explainee is put on.

    Raises:
      InputError: as `load_explainer`, but for what has to do with weights.
    """
    backbone = computing(_backbone(explainee, drawer), compute_dtype, attention)
    if backbone.size != explainee.image_size:
        raise InputError(
            f"the explainer {backbone.name} takes images of {backbone.size} pixels, the explainee "
            f"{explainee.name} of {explainee.image_size}: choose two of the same size"
        )
    return backbone


def mask_network(backbone: Architecture, drawer: MaskDrawer) -> tuple[Architecture, MaskNetwork]:
    """A backbone made for the part of it that is to be trained, and the mask network on it.

    Raises:
      InputError: where the backbone has no such part.
    """
    rank = drawer.lora_rank if TRAINED[drawer.trained].updates else 0
    module = backbone.module.with_trained(backbone.name, drawer.frozen_blocks, rank)
    head = head_for(module, drawer.head_bias)
    return dataclasses.replace(backbone, module=module), MaskNetwork(module, head, drawer.trained)


def _section(
    name: str | None,
    checkpoint: str | Path | None,
    weights: str | Path | None,
    options: dict[str, Any],
) -> MaskDrawer:
    """The section of the settings that these arguments are."""
    known = {field.name for field in dataclasses.fields(MaskDrawer)}
    own = {option: value for option, value in options.items() if option in known}
    own["sizes"] = {**own.get("sizes", {}), **{o: v for o, v in options.items() if o not in own}}
    for option, path in (("checkpoint", checkpoint), ("weights", weights)):
        own[option] = None if path is None else os.fspath(path)
    own = {"trained": "all"} | own
    if own["trained"] == "mask":
        raise InputError("a mask of its own has no network: use load_mask, or train all of it")
    return checked(MaskDrawer(name=name, **own), "explainer.")


def _backbone(explainee: Explainee, drawer: MaskDrawer) -> Architecture:
    """The backbone's network, without a classifier."""
    own, name, sizes = explainee.architecture, drawer.name, drawer.sizes
    if name is None and own is None:
        raise InputError(
            "an explainee of your own needs an explainer by name: set explainer.name to a network "
            "for the same image size, e.g. vit_small_patch16_224"
        )
    if name is None and sizes:
        raise InputError(
            f"explainer.sizes has {', '.join(sizes)}, but the explainer is the explainee's own "
            "network: set explainer.name as well, or leave them out"
        )
    if own is not None and name in (None, own.name) and not sizes:
        return own.with_module(num_classes=0)
    assert name is not None
    return architecture(name, **sizes).with_module(num_classes=0)


def _backbone_state(
    explainee: Explainee, backbone: Architecture, weights: str | None
) -> tuple[StateDict, str]:
    """The backbone's state dict, and what to call it in a message."""
    own = explainee.architecture
    if weights is None and own is not None and backbone.name == own.name:
        return to_state_dict(explainee.params, own.table(own.module)), explainee.name
    return published(backbone, weights, "config.explainer.weights")


def _with_fresh_head(
    module: MaskNetwork, backbone: Architecture, state: StateDict, source: str, seed: int
) -> Variables:
    """The variables of a mask network on a pretrained backbone."""
    table = backbone.table(backbone.module)
    template = shapes_of(backbone.module, backbone.size, backbone.channels)
    state = with_fresh_updates(state, table, template, seed)
    pretrained = from_state_dict(state, table, template, source, unused=(backbone.classifier,))
    image = jax.ShapeDtypeStruct((1, *backbone.size, backbone.channels), jnp.float32)
    _, named = jax.eval_shape(backbone.features, template, image)
    features = jnp.zeros(named["features"].shape, jnp.float32)
    fresh = _initial(jax.random.key(seed), features, module.head)
    variables: Variables = {name: {"backbone": leaves} for name, leaves in pretrained.items()}
    variables["params"]["head"] = fresh["params"]
    return variables


@partial(jax.jit, static_argnames="head")
def _initial(key: Array, features: Array, head: MaskHead) -> Variables:
    """A head's variables as its initialisers draw them; compiled once for all of its kind."""
    return dict(head.init(key, features))
