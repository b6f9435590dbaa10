"""How many slots fit, known before any memory is taken."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ltx_jax.engine.finetune import FinetuneSettings, advance, empty_slots
from ltx_jax.engine.sharding import rounded_up, slot_mesh
from ltx_jax.errors import InputError
from ltx_jax.explainee import Explainee
from ltx_jax.explainers.explainer import Explainer

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
    compiled = advance.lower(
        state, explainee, replace(network, trained={}), jnp.int32(0), settings, mesh
    ).compile()
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


def check_slots(
    explainee: Explainee, explainer: Explainer, settings: FinetuneSettings, slots: int
) -> None:
    """Refuse a number of slots that would not fit.

    Args:
      explainee, explainer, settings, slots: of the run to come; its step is compiled here, and
        the run finds it compiled.

    Raises:
      InputError: says how many slots would fit.
    """
    if slots < 1:
        raise InputError(f"finetune.slots is {slots}: at least one slot is needed")
    mesh = slot_mesh(slots)
    share = rounded_up(slots, mesh) // mesh.size
    usable = int(_USABLE * bytes_free(mesh))
    needed = bytes_needed(explainee, explainer, settings, share * mesh.size, mesh)
    if needed <= usable:
        return
    shared = sum(leaf.nbytes for leaf in jax.tree.leaves((explainee, explainer)))
    fitting = max(0, int((usable - shared) / ((needed - shared) / share))) * mesh.size
    remedy = f"{fitting} or less" if fitting else "1 and finetune.chunk to 1, or take a smaller net"
    raise InputError(
        f"{slots} slots need about {needed / 2**30:.1f} GiB of each of {mesh.size} devices and "
        f"{usable / 2**30:.1f} GiB are free: set finetune.slots to {remedy}"
    )
