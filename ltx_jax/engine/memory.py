"""How many slots fit, known before any memory is taken."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltx_jax.engine.finetune import FinetuneSettings, advance, empty_slots, slot_specs
from ltx_jax.engine.sharding import REPLICATED, slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer

# More slots a device gain nothing: a CPU core is busy with few, an accelerator with some dozens.
_OF_USE = {"cpu": 4, "gpu": 32, "tpu": 32}
# Share of the free memory that a run may plan with; the rest is for images on their way.
_USABLE = 0.9


def bytes_needed(
    explainee: Explainee, explainer: Explainer, settings: FinetuneSettings, slots: int, mesh: Mesh
) -> int:
    """Memory that one engine step takes of each device, in bytes, as the compiler plans it; nothing
    is allocated.
    """
    network = explainer.for_slots()
    state = jax.eval_shape(lambda: empty_slots(explainee, network, settings, slots, 2, mesh))

    def placed(shape: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=NamedSharding(mesh, spec))

    # Placed as the run will place them, so that the run finds the step compiled.
    slots_there = jax.tree.map(placed, state, slot_specs(state))
    others = explainee, replace(network, trained={}), jnp.int32(0)
    everywhere = jax.tree.map(partial(placed, spec=REPLICATED), others)
    compiled = advance.lower(slots_there, *everywhere, settings, mesh).compile()
    plan: Any = compiled.memory_analysis()
    return plan.argument_size_in_bytes + plan.temp_size_in_bytes


def bytes_free(mesh: Mesh) -> int:
    """Free memory of each device: of the accelerator, or its share of the host's for the CPU."""
    stats = mesh.devices.flat[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats["bytes_in_use"])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024 // mesh.size
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // mesh.size


def choose_slots(
    explainee: Explainee,
    explainer: Explainer,
    settings: FinetuneSettings,
    images: int,
    asked: int | None,
) -> tuple[int, Mesh]:
    """How many slots each device gets for a run, and the devices.

    Args:
      explainee, explainer, settings: of the run to come; its step is compiled here.
      images: of the run.
      asked: slots on each device; None for as many as are of use and fit into the free memory.

    Raises:
      InputError: where the slots asked for would not fit, or not even one does.
    """
    if asked is not None and asked < 1:
        raise InputError(f"finetune.slots is {asked}: at least one slot is needed")
    mesh = slot_mesh(images)
    share = -(-images // mesh.size)
    most = _OF_USE.get(mesh.devices.flat[0].platform, _OF_USE["gpu"]) if asked is None else asked
    slots = min(most, share)
    usable = int(_USABLE * bytes_free(mesh))
    needed = bytes_needed(explainee, explainer, settings, slots, mesh)
    if needed > usable:
        shared = sum(leaf.nbytes for leaf in jax.tree.leaves((explainee, explainer)))
        fitting = int((usable - shared) / ((needed - shared) / slots))
        if asked is not None or fitting < 1:
            remedy = str(fitting) if fitting > 0 else "1 and finetune.chunk to 9"
            raise InputError(
                f"{slots} slots need about {needed / 2**30:.1f} GiB on each of {mesh.size} devices "
                f"and {usable / 2**30:.1f} GiB are free: set finetune.slots to {remedy}"
            )
        slots = fitting
    logging.info("slots: %d on each of %d devices", slots, mesh.size)
    return slots, mesh
