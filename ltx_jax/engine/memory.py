"""What fits into a device, known before any memory is taken."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ltx_jax.engine.finetune import advance, empty_slots, slot_specs
from ltx_jax.engine.recipe import Method, Recipe
from ltx_jax.engine.sharding import REPLICATED, placed_shape, slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainers.drawer import Drawer
from ltx_jax.models.explainee import Explainee

# More of them gain nothing: a CPU core is busy with few slots, an accelerator with some dozens.
_SLOTS_OF_USE = {"cpu": 2, "gpu": 32, "tpu": 32}
# So many are enough to keep a larger chunk for.
_FEW_SLOTS = 8
# Images in one forward, in the order of preference: the nine of one mask stay in a CPU's cache.
_CHUNKS_OF_USE = {"cpu": (9,), "gpu": (288, 36, 9), "tpu": (288, 36, 9)}
# What JAX says where memory is short.
_EXHAUSTED = "RESOURCE_EXHAUSTED"
# Share of the free memory that a run may plan with; the rest is for images on their way.
USABLE = 0.9


# Bytes by what a step is compiled for: another explainee of the same structure needs as many.
_PLANNED: dict[Any, int | None] = {}


def bytes_needed(
    explainee: Explainee, explainer: Drawer, recipe: Recipe, slots: int, mesh: Mesh
) -> int | None:
    """Memory that one engine step takes of each device, in bytes, as the compiler plans it; nothing
    is allocated. None where the compiler sees that it cannot fit, which a TPU's does.
    """
    given = explainee, explainer.for_slots(), recipe.numbers

    def shape(x: Any) -> tuple[Any, ...]:
        return jnp.shape(x), jnp.asarray(x).dtype

    shapes = tuple(map(shape, jax.tree.leaves(given)))
    key = jax.tree.structure(given), shapes, recipe.method, slots, mesh
    if key not in _PLANNED:
        arguments, static = step_of_shapes(explainee, explainer, recipe, slots, mesh)
        step = compiled(advance.lower(*arguments, *static))
        _PLANNED[key] = None if step is None else bytes_of(step)
    return _PLANNED[key]


def step_of_shapes(
    explainee: Explainee, explainer: Drawer, recipe: Recipe, slots: int, mesh: Mesh
) -> tuple[tuple[Any, ...], tuple[Method, Mesh]]:
    """What `advance` is given for a step of so many slots on each device: shapes, and what is
    static.

    Args:
      explainee, explainer: with arrays or `jax.ShapeDtypeStruct`s.
      recipe, slots: of the run.
      mesh: devices, which need not be here.
    """
    network, (method, numbers) = explainer.for_slots(), recipe
    empty = partial(empty_slots, method=method, slots=slots, k=2, mesh=mesh)
    state = jax.eval_shape(empty, explainee, network, numbers)
    # Placed as the run will place them, so that the run finds the step compiled.
    slots_there = jax.tree.map(partial(placed_shape, mesh), state, slot_specs(state, network))
    others = explainee, network.without_trained(), jnp.int32(0), numbers
    everywhere = jax.tree.map(partial(placed_shape, mesh, spec=REPLICATED), others)
    return (slots_there, *everywhere), (method, mesh)


def compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled | None:
    """The program; None where the compiler sees that it cannot fit, which a TPU's does."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if _EXHAUSTED not in str(error):
            raise
        return None


def bytes_of(program: jax.stages.Compiled) -> int:
    """Memory that a program takes of each device, in bytes, as the compiler plans it."""
    plan: Any = program.memory_analysis()
    return plan.argument_size_in_bytes + plan.temp_size_in_bytes


@contextmanager
def within_memory(slots: int) -> Iterator[None]:
    """Work with so many slots on each device, of which only the largest part was planned.

    Raises:
      InputError: where a device runs out of memory all the same.
    """
    remedy = f"finetune.slots to {slots // 2}" if slots > 1 else "finetune.chunk to 9"
    with _remedied(f"with {slots} slots: set {remedy}"):
        yield


@contextmanager
def batch_within_memory(batch: BatchLayout) -> Iterator[None]:
    """Work with a batch, which nothing was planned for.

    Raises:
      InputError: where a device runs out of memory.
    """
    images = batch.images // batch.mesh.size
    remedy = "take a device with more, or, where masks are scored, set finetune.chunk lower"
    with _remedied(f"with {images} images: {remedy}"):
        yield


@contextmanager
def _remedied(remedy: str) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if _EXHAUSTED not in str(error):
            raise
        raise InputError(f"a device ran out of memory {remedy}") from error


def bytes_free(mesh: Mesh) -> int:
    """Free memory of each device: of the accelerator, or its share of the host's for the CPU.

    Raises:
      InputError: for an accelerator that does not tell.
    """
    device = mesh.devices.flat[0]
    if device.platform != "cpu":
        stats = device.memory_stats()
        if not stats or "bytes_limit" not in stats:
            raise InputError(
                f"{device.device_kind} does not tell its memory: use a CPU, GPU or TPU"
            )
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    return _host_bytes_free() // mesh.size


def _host_bytes_free() -> int:
    """What the host has left, or the container where its limit is closer."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    host = int(lines["MemAvailable"].split()[0]) * 1024
    return min([host, *_container_bytes_free()])


def _container_bytes_free(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What a control group's limit leaves (version 2, or 1), without what it may give back."""
    found = []
    for folder, limit, usage, reclaimable in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most = int((folder / limit).read_text())  # version 2 says `max` where there is none
            used = int((folder / usage).read_text())
            told = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):
            continue
        statistics = dict(line.split() for line in told)
        found.append(max(most - used + int(statistics.get(reclaimable, 0)), 0))
    return found


class Layout(NamedTuple):
    """How a run is laid out: the recipe with its chunk, slots on each device, and the devices."""

    recipe: Recipe
    slots: int
    mesh: Mesh


class BatchLayout(NamedTuple):
    """Work that needs no slots: images at once on all devices together, the devices, and the most
    images in one forward of the explainee."""

    images: int
    mesh: Mesh
    chunk: int


def batch_of_use(explainee: Explainee, images: int, chunk: int | None = None) -> BatchLayout:
    """A batch for so many images; the chunk is chosen where none is asked for."""
    # Calls of Python from several devices of a CPU wait for each other, for ever.
    mesh = slot_mesh(1 if explainee.on_host else images)
    of_use = _SLOTS_OF_USE[mesh.devices.flat[0].platform]
    each = min(of_use, -(-images // mesh.size))
    return BatchLayout(each * mesh.size, mesh, chunk or default_chunk())


def default_chunk(platform: str | None = None) -> int:
    """Most images in one forward of the explainee, of those that are of use on a platform: on that
    of the devices here where none is named."""
    return _CHUNKS_OF_USE[platform or jax.local_devices()[0].platform][0]


def lay_out(
    explainee: Explainee,
    explainer: Drawer,
    recipe: Recipe,
    images: int,
    slots: int | None,
) -> Layout:
    """Choose what nobody asked for: as many slots, and as large a chunk, as are of use and fit.

    Args:
      explainee, explainer, recipe: of the run to come; its step is compiled here. Where the
        recipe's chunk is None it is chosen.
      images: of the run.
      slots: asked for on each device; None to choose them.

    Raises:
      InputError: where the slots asked for would not fit, or not even one does.
    """
    if images < 1:
        raise InputError(
            "no images to explain: correct config.limit, config.indices or the targets"
        )
    mesh = slot_mesh(images)
    platform = mesh.devices.flat[0].platform
    wanted = min(slots or _SLOTS_OF_USE[platform], -(-images // mesh.size))
    usable = int(USABLE * bytes_free(mesh))
    chunk = recipe.method.chunk
    chunks = (chunk,) if chunk else _CHUNKS_OF_USE[platform]
    counts = (wanted,) if slots is not None else _halves(wanted)
    # Somewhat fewer slots before a smaller chunk, and fewest at the end.
    few = min(_FEW_SLOTS, wanted)
    for chunk, count in product(chunks, counts):
        if count < few and chunk != chunks[-1]:
            continue
        chosen = recipe.with_chunk(chunk)
        needed = bytes_needed(explainee, explainer, chosen, count, mesh)
        if needed is not None and needed <= usable:
            logging.info("%d slots on each of %d devices, chunk %d", count, mesh.size, chunk)
            return Layout(chosen, count, mesh)
    told = "more" if needed is None else f"about {needed / 2**30:.1f} GiB"
    fitting = _fitting(explainee, explainer, chosen, usable, mesh) if count > 1 else 0
    remedy = "take a smaller network, or a device with more"
    if fitting:
        remedy = f"set finetune.slots to {fitting}"
    elif (count, chunk) > (1, min(_CHUNKS_OF_USE[platform])):
        remedy = "set finetune.slots to 1 and finetune.chunk to 9"
    raise InputError(
        f"{count} slots need {told} of memory on each of {mesh.size} devices, and "
        f"{usable / 2**30:.1f} GiB are free: {remedy}"
    )


def _halves(count: int) -> tuple[int, ...]:
    """The number, its half, and so on down to one."""
    return () if count == 0 else (count, *_halves(count // 2))


def _fitting(
    explainee: Explainee, explainer: Drawer, recipe: Recipe, usable: int, mesh: Mesh
) -> int:
    """About how many slots fit: none, if not one does."""
    one, two = (bytes_needed(explainee, explainer, recipe, count, mesh) for count in (1, 2))
    if one is None or one > usable:
        return 0
    return 1 if two is None else 1 + int((usable - one) / max(two - one, 1))
