"""The networks of a configuration, and its steps, as shapes alone: nothing is downloaded, read or
computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from counting import operations
from jax.sharding import Mesh
from jax.tree_util import Partial

from ltx_jax.engine import training
from ltx_jax.engine.finetune import advance
from ltx_jax.engine.memory import default_chunk, step_of_shapes
from ltx_jax.engine.pretraining import ltx_loss
from ltx_jax.engine.recipe import Recipe, make_goal, make_recipe
from ltx_jax.engine.sharding import REPLICATED, SPLIT, placed_shape
from ltx_jax.errors import InputError
from ltx_jax.explainers.explainer import Explainer, explainer_from
from ltx_jax.explainers.mask_itself import MaskItself, cells_for
from ltx_jax.loading.explainees import computing
from ltx_jax.loading.explainers import backbone_for, completed, mask_network
from ltx_jax.models.explainee import Explainee
from ltx_jax.models.registry import architecture
from ltx_jax.settings.sections import Settings
from ltx_jax.weights.state_dict import shapes_of

# Slots on each device where the configuration does not say.
_SLOTS = 4


class Step(NamedTuple):
    """A step of the program, as large as one asks.

    Attributes:
      what: it is.
      counted: what its size is the number of.
      asked: the size that the configuration asks for.
      least: the smallest size; the others are multiples of it.
      lowered: the step of a size, to be compiled.
      operations: of the step of a size on each device, see `counting.operations`.
      weights: elements of each leaf, or slice of a stack of them, that a device has in a step of a
        size.
      alone: whether the devices have nothing to tell each other.
    """

    what: str
    counted: str
    asked: int
    least: int
    lowered: Callable[[int], jax.stages.Lowered]
    operations: Callable[[int], int]
    weights: Callable[[int], set[int]]
    alone: bool


def refuse_task(settings: Settings) -> None:
    """See that a configuration is of a task whose steps are known here.

    Raises:
      InputError: where it is not.
    """
    if settings.task not in ("explain", "pretrain"):
        raise InputError(
            f"config.task is {settings.task}, whose steps are not counted: set it to explain or "
            "pretrain"
        )


def explainee_of(settings: Settings) -> Explainee:
    """The explainee, its parameters `jax.ShapeDtypeStruct`s.

    Raises:
      InputError: for an unknown network, or sizes that do not fit.
    """
    chosen = settings.explainee
    network = computing(
        architecture(chosen.name, **chosen.sizes), settings.compute_dtype, settings.attention
    )
    return Explainee(
        apply=network.apply,
        params=shapes_of(network.module, network.size, network.channels),
        image_size=network.size,
        num_classes=network.module.num_classes,
        name=chosen.name,
        link=chosen.link,
        channels=network.channels,
        features=network.features,
        architecture=network,
    )


def drawer_of(settings: Settings, explainee: Explainee) -> Explainer | MaskItself:
    """What draws the masks of an explainee, likewise; where a mask of its own starts is left out.

    Raises:
      InputError: for an unknown network, or a part of it that cannot be trained.
    """
    chosen = settings.explainer
    if chosen.trained == "mask":
        return MaskItself(cells_for(explainee.image_size, chosen.grid))
    chosen = completed(chosen, explainee.image_size)
    assert chosen.activation is not None and chosen.classes is not None
    if chosen.classes > 1:
        raise InputError(
            f"config.explainer.classes is {chosen.classes}, and steps of masks of every class are "
            "not counted: leave it out"
        )
    backbone = backbone_for(explainee, chosen, settings.compute_dtype, settings.attention)
    backbone, module = mask_network(backbone, chosen)
    made = partial(explainer_from, module, backbone, activation=chosen.activation)
    return jax.eval_shape(made, shapes_of(module, backbone.size, backbone.channels))


def finetuning(settings: Settings, mesh: Mesh) -> Step:
    """A step of the engine that optimises slots, as `engine.memory` plans it.

    Raises:
      InputError: as `drawer_of`, or for an unknown term or fill.
    """
    explainee = explainee_of(settings)
    drawer = drawer_of(settings, explainee)
    recipe = make_recipe(settings.finetune, settings.objective)
    recipe = recipe.with_chunk(recipe.method.chunk or default_chunk("tpu"))

    def shapes(recipe: Recipe, slots: int) -> Any:
        return step_of_shapes(explainee, drawer, recipe, slots, mesh)

    def lowered(slots: int) -> jax.stages.Lowered:
        arguments, static = shapes(recipe, slots)
        return advance.lower(*arguments, *static)

    # A loop of unknown length would count once.
    whole = recipe._replace(method=replace(recipe.method, lazy=False))

    def counted(slots: int) -> int:
        arguments, (method, mesh) = shapes(whole, slots)
        return operations(partial(advance, method=method, mesh=mesh), *arguments)

    return Step(
        what=f"finetuning step of {explainee.name}, chunk {recipe.method.chunk}",
        counted="slots on each device",
        asked=settings.finetune.slots or _SLOTS,
        least=1,
        lowered=lowered,
        operations=counted,
        weights=lambda slots: _elements(explainee.params) | _elements(drawer.trained, slots),
        alone=True,
    )


def pretraining(settings: Settings, mesh: Mesh) -> Step:
    """A training step of an explainer, on photographs.

    Raises:
      InputError: as `finetuning`, or where the devices do not divide the batch.
    """
    explainee, section = explainee_of(settings), settings.pretrain
    explainer = drawer_of(settings, explainee)
    assert isinstance(explainer, Explainer)  # the settings say so
    least = mesh.size * section.accumulate
    if section.batch_size % least:
        raise InputError(
            f"pretrain.batch_size is {section.batch_size}: give a multiple of {least}, the devices "
            "times pretrain.accumulate"
        )
    static = {"mesh": mesh, "parts": section.accumulate, "sharded": section.sharded}

    def shapes(batch: int) -> Any:
        return _training_shapes(settings, explainee, explainer, batch, mesh)

    return Step(
        what=f"training step of {explainee.name}",
        counted="images in a batch",
        asked=section.batch_size,
        least=least,
        lowered=lambda batch: training.step_on_devices.lower(*shapes(batch), **static),
        operations=lambda batch: (
            operations(partial(training.step_on_devices, **static), *shapes(batch)) // mesh.size
        ),
        weights=lambda _: _elements((explainee.params, explainer.trained, explainer.frozen)),
        alone=False,
    )


def _training_shapes(
    settings: Settings, explainee: Explainee, explainer: Explainer, batch: int, mesh: Mesh
) -> tuple[Any, ...]:
    """The arguments of a training step, placed as the `pretrain` task places them."""
    section, everywhere = settings.pretrain, partial(placed_shape, mesh, spec=REPLICATED)
    optimizer = Partial(training.adamw, section.learning_rate, section.weight_decay, section.clip)
    given = explainee, explainer.without_trained(), make_goal(settings.objective)
    loss = Partial(ltx_loss, *jax.tree.map(everywhere, given))

    def begin(trained: Any) -> training.TrainState:
        return training.TrainState(trained, {}, optimizer().init(trained), jnp.int32(0))

    state = jax.eval_shape(begin, explainer.trained)
    state = jax.tree.map(
        lambda array, sharding: placed_shape(mesh, array, sharding.spec),
        *(state, training.state_shardings(state, mesh, section.sharded)),
    )
    images = {
        "images": jax.ShapeDtypeStruct((batch, *explainee.image_shape), jnp.uint8),
        "targets": jax.ShapeDtypeStruct((batch,), jnp.int32),
    }
    images = jax.tree.map(partial(placed_shape, mesh, spec=SPLIT), images)
    key = everywhere(jax.eval_shape(jax.random.key, 0))
    return state, images, key, loss, optimizer


def _elements(leaves: Any, slots: int = 1) -> set[int]:
    """Of each leaf, and of one of a stack of them, for so many slots together."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(leaves)]
    return {slots * math.prod(part) for shape in shapes for part in (shape, shape[1:])}
