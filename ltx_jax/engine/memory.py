"""What fits into a device, known before any memory is taken."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltx_jax.engine.finetune import FinetuneSettings, advance, empty_slots, slot_specs
from ltx_jax.engine.sharding import REPLICATED, slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer

# More of them gain nothing: a CPU core is busy with few slots, an accelerator with some dozens.
_SLOTS_OF_USE = {"cpu": 2, "gpu": 32, "tpu": 32}
# So many are enough to keep a larger chunk for.
_FEW_SLOTS = 8
# Images in one forward, in the order of preference: the nine of one mask stay in a CPU's cache.
_CHUNKS_OF_USE = {"cpu": (9,), "gpu": (288, 36, 9), "tpu": (288, 36, 9)}
# What JAX says where memory is short.
_EXHAUSTED = "RESOURCE_EXHAUSTED"
# Share of the free memory that a run may plan with; the rest is for images on their way.
_USABLE = 0.9


def bytes_needed(
    explainee: Explainee, explainer: Explainer, settings: FinetuneSettings, slots: int, mesh: Mesh
) -> int | None:
    """Memory that one engine step takes of each device, in bytes, as the compiler plans it; nothing
    is allocated. None where the compiler sees that it cannot fit, which a TPU's does.
    """
    network = explainer.for_slots()
    state = jax.eval_shape(lambda: empty_slots(explainee, network, settings, slots, 2, mesh))

    def placed(shape: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=NamedSharding(mesh, spec))

    # Placed as the run will place them, so that the run finds the step compiled.
    slots_there = jax.tree.map(placed, state, slot_specs(state))
    others = explainee, network.without_trained(), jnp.int32(0)
    everywhere = jax.tree.map(partial(placed, spec=REPLICATED), others)
    lowered = advance.lower(slots_there, *everywhere, settings, mesh)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if _EXHAUSTED not in str(error):
            raise
        return None
    plan: Any = compiled.memory_analysis()
    return plan.argument_size_in_bytes + plan.temp_size_in_bytes


@contextmanager
def within_memory(slots: int) -> Iterator[None]:
    """Work with so many slots on each device, of which only the largest part was planned.

    Raises:
      InputError: where a device runs out of memory all the same.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if _EXHAUSTED not in str(error):
            raise
        remedy = f"finetune.slots to {slots // 2}" if slots > 1 else "finetune.chunk to 9"
        raise InputError(f"a device ran out of memory with {slots} slots: set {remedy}") from error


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
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024 // mesh.size
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // mesh.size


class Layout(NamedTuple):
    """How a run is laid out: settings with their chunk, slots on each device, and the devices."""

    settings: FinetuneSettings
    slots: int
    mesh: Mesh


def default_chunk() -> int:
    """Most images in one forward of the explainee, of those that are of use on these devices."""
    return _CHUNKS_OF_USE[jax.local_devices()[0].platform][0]


def lay_out(
    explainee: Explainee,
    explainer: Explainer,
    settings: FinetuneSettings,
    images: int,
    slots: int | None,
) -> Layout:
    """Choose what nobody asked for: as many slots, and as large a chunk, as are of use and fit.

    Args:
      explainee, explainer, settings: of the run to come; its step is compiled here. Where
        `settings.chunk` is None it is chosen.
      images: of the run.
      slots: asked for on each device; None to choose them.

    Raises:
      InputError: where the slots asked for would not fit, or not even one does.
    """
    if slots is not None and slots < 1:
        raise InputError(f"finetune.slots is {slots}: at least one slot is needed")
    if images < 1:
        raise InputError(
            "no images to explain: correct config.limit, config.indices or the targets"
        )
    mesh = slot_mesh(images)
    platform = mesh.devices.flat[0].platform
    wanted = min(slots or _SLOTS_OF_USE[platform], -(-images // mesh.size))
    usable = int(_USABLE * bytes_free(mesh))
    chunks = (settings.chunk,) if settings.chunk else _CHUNKS_OF_USE[platform]
    counts = (wanted,) if slots is not None else _halves(wanted)
    # Somewhat fewer slots before a smaller chunk, and fewest at the end.
    few = min(_FEW_SLOTS, wanted)
    for chunk, count in product(chunks, counts):
        if count < few and chunk != chunks[-1]:
            continue
        chosen = replace(settings, chunk=chunk)
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
    explainee: Explainee, explainer: Explainer, settings: FinetuneSettings, usable: int, mesh: Mesh
) -> int:
    """About how many slots fit: none, if not one does."""
    one, two = (bytes_needed(explainee, explainer, settings, count, mesh) for count in (1, 2))
    if one is None or one > usable:
        return 0
    return 1 if two is None else 1 + int((usable - one) / (two - one))
