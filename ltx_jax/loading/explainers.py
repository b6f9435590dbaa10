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
from ltx_jax.explainers.head_for import head_for
from ltx_jax.explainers.heads import MaskHead
from ltx_jax.explainers.leaves import TRAINED
from ltx_jax.explainers.mask_itself import MaskItself, cells_for
from ltx_jax.loading.checkpoints import (
    SavedExplainer,
    named,
    read_explainer,
    with_fresh_updates,
)
from ltx_jax.loading.explainees import computing, fitted, published
from ltx_jax.models.architecture import Architecture, hashable
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import architecture
from ltx_jax.settings.section import checked
from ltx_jax.settings.sections import MaskDrawer, Settings
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
      name: timm name of the backbone; None for the checkpoint's, or the explainee's own network.
      checkpoint: an explainer checkpoint (`save_explainer`), whose metadata tell all that is not
        given; None for a fresh mask head, whose masks are poor until it is pretrained.
      weights: of the backbone when there is no checkpoint; None for the explainee's own where it
        is the same network, else for the hub.
      compute_dtype: `float32` or `bfloat16`; parameters are float32 either way.
      attention: as for the explainee.
      seed: of a fresh head and fresh updates.
      **options: the other settings of `MaskDrawer` (`activation`, `head_bias`, `trained`,
        `frozen_blocks`, `lora_rank`, `classes`, `head`, `edge_radius`), with its defaults; and, as
        they are or as `sizes`, what differs from the published network (`image_size`, `depth` …).

    Raises:
      InputError: as `load_explainee`; for an option that is none, or that the checkpoint
        contradicts; or where the image sizes of the two, or the classes, differ.
    """
    seed = checked(Settings(seed=seed)).seed
    saved = None if checkpoint is None else read_explainer(checkpoint)
    drawer = _section(name, checkpoint, weights, options, saved, explainee.image_size)
    where = "explainer.classes" if checkpoint is None else f"the explainer of {checkpoint}"
    _refuse_other_classes(explainee, drawer.classes, where)
    backbone = backbone_for(explainee, drawer, compute_dtype, attention)
    if checkpoint is None or saved is None:
        state, source = _backbone_state(explainee, backbone, drawer.weights)
    else:
        state, source = saved.state, named(checkpoint)
    backbone, state = fitted(backbone, state, {*drawer.sizes, "image_size", "num_classes"})
    backbone, module = mask_network(backbone, drawer)
    _refuse_edges(module, drawer)
    variables_of = _with_fresh_head if saved is None else _all_of_it
    variables = variables_of(module, backbone, state, source, seed)
    assert drawer.activation is not None and drawer.edge_radius is not None
    return explainer_from(module, backbone, variables, drawer.activation, drawer.edge_radius)


def load_mask(
    explainee: Explainee, start: str | Explainer | None = None, grid: int | None = None
) -> MaskItself:
    """The mask itself as what is optimised for each image; it needs no weights.

    Args:
      explainee: what is to be explained.
      start: `centre`, a bias towards the centre; the name of a rival, whose relevance orders the
        cells; or an explainer whose masks they are to begin with; of one for every class that of
        the class explained, at pixels, and what is optimised is a change of it. If not given,
        `grad_cam` where the explainee gives a map called `features`, else `gradient_x_input`.
      grid: cells along the longer side; of about 8 pixels, 8 to 14, where not given.

    Raises:
      InputError: for an unknown start, a grid beyond the image, or an explainer for another size.
    """
    grid = checked(MaskDrawer(grid=grid), "explainer.").grid
    if isinstance(start, Explainer):
        if grid is not None and max(start.grid()) != grid:
            raise InputError(
                f"explainer.grid is {grid}, the explainer that starts the mask has {start.grid()}: "
                "leave explainer.grid out"
            )
        refuse_unfit(start, explainee)
        changed = explainee.image_size if start.classes > 1 else None
        return MaskItself(start.grid(), network=start, changed=changed)
    cells = cells_for(explainee.image_size, grid)
    name = start or (_START_WITH_FEATURES if _gives_a_map(explainee) else _START)
    if name == CENTRE:
        return MaskItself(cells)
    if name not in RIVALS:
        known = ", ".join(dict.fromkeys((CENTRE, PLTX, *RIVALS)))
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
    _refuse_other_images(explainee, backbone)
    return backbone


def refuse_unfit(explainer: Explainer, explainee: Explainee) -> None:
    """See that an explainer takes an explainee's images, and has one mask or one a class.

    Raises:
      InputError: where it does not.
    """
    _refuse_other_images(explainee, explainer.architecture)
    _refuse_other_classes(explainee, explainer.classes, "the explainer")


def _refuse_other_images(explainee: Explainee, network: Architecture) -> None:
    shape = (*network.size, network.channels)
    if shape != explainee.image_shape:
        raise InputError(
            f"the explainer {network.name} takes images {shape}, the explainee {explainee.name} "
            f"{explainee.image_shape}: choose two of the same size and channels"
        )


def mask_network(backbone: Architecture, drawer: MaskDrawer) -> tuple[Architecture, MaskNetwork]:
    """A backbone made for the part of it that is to be trained, and the mask network on it.

    Raises:
      InputError: where the backbone has no such part.
    """
    drawer = drawer.completed()
    assert drawer.frozen_blocks is not None and drawer.lora_rank is not None
    assert drawer.head is not None and drawer.classes is not None
    rank = drawer.lora_rank if TRAINED[drawer.trained].updates else 0
    module = backbone.module.with_trained(backbone.name, drawer.frozen_blocks, rank)
    head = head_for(module, drawer.head, drawer.classes, drawer.head_bias)
    return dataclasses.replace(backbone, module=module), MaskNetwork(module, head, drawer.trained)


def completed(given: MaskDrawer, size: tuple[int, int]) -> MaskDrawer:
    """The section of a network with what is not given as its checkpoint says, or as it is without
    one.

    Args:
      given: the section.
      size: (H, W) of the explainee's images.

    Raises:
      InputError: where the checkpoint cannot be read, or is of something else than what is given.
    """
    saved = None if given.checkpoint is None else read_explainer(given.checkpoint).configuration
    return given.completed() if saved is None else _as_saved(given, saved, size)


def _section(
    name: str | None,
    checkpoint: str | Path | None,
    weights: str | Path | None,
    options: dict[str, Any],
    saved: SavedExplainer | None,
    size: tuple[int, int],
) -> MaskDrawer:
    """The section of the settings that these arguments are, with all that a checkpoint says."""
    known = {field.name for field in dataclasses.fields(MaskDrawer)}
    own = {option: value for option, value in options.items() if option in known}
    own["sizes"] = {**own.get("sizes", {}), **{o: v for o, v in options.items() if o not in own}}
    for option, path in (("checkpoint", checkpoint), ("weights", weights)):
        own[option] = None if path is None else os.fspath(path)
    configuration = None if saved is None else saved.configuration
    updates = configuration is not None and TRAINED[configuration.trained].updates
    own = {"trained": "lora" if updates else "all"} | own
    if own["trained"] == "mask":
        raise InputError("a mask of its own has no network: use load_mask, or train all of it")
    given = checked(MaskDrawer(name=name, **own), "explainer.")
    return given.completed() if configuration is None else _as_saved(given, configuration, size)


def _as_saved(given: MaskDrawer, saved: MaskDrawer, size: tuple[int, int]) -> MaskDrawer:
    """A section with what is not given as a checkpoint's own section has it.

    The image size is the explainee's where it is not given: a ViT's positions are resampled.

    Raises:
      InputError: where the checkpoint is of something else than what is given.
    """
    sizes = {name: hashable(value) for name, value in given.sizes.items() if value is not None}
    same = ["activation", "classes", "head"]
    same += ["trained", "lora_rank"] * TRAINED[saved.trained].updates
    facts: dict[str, Any] = {"name": (_without_tag(given.name), _without_tag(saved.name))}
    told_by = saved.completed()
    facts |= {option: (getattr(given, option), getattr(told_by, option)) for option in same}
    for name in sorted(sizes.keys() & saved.sizes.keys() - {"image_size"}):
        facts[f"sizes.{name}"] = sizes[name], saved.sizes[name]
    for option, (ours, theirs) in facts.items():
        if ours is not None and ours != theirs:
            raise InputError(
                f"the checkpoint {given.checkpoint} is of {theirs}, and explainer.{option} is "
                f"{ours}: leave it out, or set it to that"
            )
    told = dict(saved.sizes)
    if "image_size" in told:
        told["image_size"] = max(size)
    return dataclasses.replace(given.completed(saved), name=saved.name, sizes=told | sizes)


def _refuse_other_classes(explainee: Explainee, classes: int | None, where: str) -> None:
    """See that a network has one mask, or one for each class of the explainee."""
    if classes not in (1, explainee.classes):
        raise InputError(
            f"{where} has masks for {classes} classes, and {explainee.name} has "
            f"{explainee.classes}: give one of {explainee.classes}, or of 1"
        )


def _refuse_edges(module: MaskNetwork, drawer: MaskDrawer) -> None:
    """See that masks that are to follow an image's edges are of pixels, before a sigmoid, and of a
    network that begins with the image itself."""
    whole = module.trained == "all" and module.backbone.feature_kind == "map"
    fits = module.head.classes > 1 and whole and drawer.activation == "sigmoid"
    if drawer.edge_radius and not fits:
        raise InputError(
            f"explainer.edge_radius {drawer.edge_radius} is for masks of every class (classes), "
            "before a sigmoid (activation), of a CNN that is trained whole (trained=all): set it "
            "to 0"
        )


def _without_tag(name: str | None) -> str | None:
    """A timm name without what tells its published weights."""
    return None if name is None else name.partition(".")[0]


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
    variables: Variables = {}
    for part, found in {"backbone": pretrained, "head": fresh}.items():
        for collection, leaves in found.items():
            variables.setdefault(collection, {})[part] = leaves
    return variables


def _all_of_it(
    module: MaskNetwork, backbone: Architecture, state: StateDict, source: str, seed: int
) -> Variables:
    """The variables of a mask network from a checkpoint."""
    table = weight_table(backbone, module.head)
    template = shapes_of(module, backbone.size, backbone.channels)
    state = with_fresh_updates(state, table, template, seed)
    return from_state_dict(state, table, template, source)


@partial(jax.jit, static_argnames="head")
def _initial(key: Array, features: Array, head: MaskHead) -> Variables:
    """A head's variables as its initialisers draw them; compiled once for all of its kind."""
    return dict(head.init(key, features))
