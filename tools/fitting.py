"""A step compiled for a TPU that need not be here: how much of it fits, and what it does."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from math import inf
from typing import Any, NamedTuple

import hlo
import jax
import jax.numpy as jnp
import numpy as np
from abstract import Step, finetuning, pretraining, refuse_task
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding

from ltx_jax.engine.memory import USABLE, bytes_of, compiled
from ltx_jax.engine.sharding import AXIS, REPLICATED
from ltx_jax.errors import InputError
from ltx_jax.settings.sections import Settings

# Bytes of the smallest copy or transpose that is told.
_LARGE = 2**20
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class Devices(NamedTuple):
    """The devices of a topology: their mesh, and bytes of memory that a program may use of each."""

    mesh: Mesh
    memory: int


class Compiled(NamedTuple):
    """A step of a size, compiled; no program where it cannot fit."""

    size: int
    seconds: float
    program: jax.stages.Compiled | None

    @property
    def bytes(self) -> int | None:
        """That it takes of each device."""
        return None if self.program is None else bytes_of(self.program)


class Largest(NamedTuple):
    """The largest size of a step that fits, and bytes that each more takes of a device; None where
    no two could be compared."""

    size: int
    bytes_each: float | None

    def __str__(self) -> str:
        if self.bytes_each is None:
            return str(self.size)
        return f"{self.size}, {self.bytes_each / 1e9:.3g} GB for each more"


def devices_of(topology: str) -> Devices:
    """The devices of a topology, none of which need be here.

    Raises:
      InputError: where there is no such topology, or no compiler for it.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('a TPU\'s compiler is missing: pip install "jax[tpu]"')
    # Nobody is to look for a TPU, nor for the machine that it would be in; others may use it.
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # The two cores of such a chip are one device of a run, which a topology has to be told.
    kind = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        found = topologies.get_topology_desc(topology, platform="tpu", **kind).devices
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"no topology {topology!r} ({' '.join(str(error).split())}): give one like v5e:2x2"
        ) from error
    return Devices(Mesh(np.array(found), (AXIS,)), _memory(found[0]))


def _memory(device: Any) -> int:
    """Bytes that a program may use of a device: what the compiler says that one of far more does
    not fit into."""
    alone = NamedSharding(Mesh(np.array([device]), (AXIS,)), REPLICATED)
    far_more = jax.ShapeDtypeStruct((2**40,), jnp.uint8, sharding=alone)
    try:
        jax.jit(lambda x: x + jnp.uint8(1)).lower(far_more).compile()
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"(?:of |HBM \()([\d.]+)([KMG])", str(error))
        if found:
            return int(float(found[1]) * _UNITS[found[2]])
        raise
    raise AssertionError(f"{device.device_kind} has a terabyte")


def step_of(settings: Settings, mesh: Mesh) -> Step:
    """The step that a configuration's task takes over and over.

    Raises:
      InputError: for a task without one, or as the steps.
    """
    refuse_task(settings)
    steps = {"explain": finetuning, "pretrain": pretraining}
    return steps[settings.task](settings, mesh)


def compile_step(step: Step, size: int) -> Compiled:
    """The step of a size; see `Compiled`."""
    began = time.perf_counter()
    program = compiled(step.lowered(size))
    return Compiled(size, time.perf_counter() - began, program)


def report(step: Step, made: Compiled, devices: Devices) -> str:
    """What a compiled step needs and does, in words.

    Raises:
      AssertionError: where devices that have nothing to tell each other do.
    """
    size, memory = made.size, devices.memory
    head = f"{size} {step.counted}, compiled in {made.seconds:.0f} s"
    if made.program is None:
        return f"{head}\ndoes not fit into {memory / 1e9:.3g} GB"
    plan: Any = made.program.memory_analysis()
    own = plan.output_size_in_bytes - plan.alias_size_in_bytes
    program = hlo.parse(made.program.as_text())
    exchanged = hlo.collectives(program)
    assert not (step.alone and exchanged), f"devices tell each other {exchanged}"
    count = step.operations(size)
    lines = [
        head,
        f"memory of each device: {plan.argument_size_in_bytes / 1e9:.3g} GB of arguments, "
        f"{plan.output_size_in_bytes / 1e9:.3g} GB of results ({own / 1e9:.3g} GB not in their "
        f"place), {plan.temp_size_in_bytes / 1e9:.3g} GB of temporaries: fits into "
        f"{memory / 1e9:.3g} GB",
        f"collectives: {_listed(exchanged)}",
        f"operations of each device: {count / 1e12:.3g} TFLOP",
        *_moves(program, step.weights(size)),
    ]
    return "\n".join(lines)


def _listed(exchanged: Sequence[hlo.Run]) -> str:
    """Collectives with how often they run in a step, and their bytes together."""
    times: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for one in exchanged:
        times[one.operation] += one.times
        moved[one.operation] += one.times * one.bytes
    told = [f"{name} {times[name]} times, {moved[name] / 1e6:.3g} MB" for name in times]
    return "; ".join(told) or "none"


def _moves(program: hlo.Program, weights: set[int]) -> list[str]:
    """The large copies and transposes in memory, of loops as often as they run; and of those that
    have as many elements as weights, each."""
    large = [one for one in hlo.moves(program) if one.bytes >= _LARGE]
    total = sum(one.times * one.bytes for one in large)
    of_weights = [one for one in large if one.elements in weights]
    lines = [
        f"copies and transposes of 1 MiB or more: {sum(one.times for one in large)}, "
        f"{total / 1e9:.3g} GB; of weights {sum(one.times for one in of_weights)}, "
        f"{sum(one.times * one.bytes for one in of_weights) / 1e9:.3g} GB"
    ]
    for one in sorted(of_weights, key=lambda one: -one.times * one.bytes):
        lines.append(
            f"  {one.times} × {one.bytes / 1e6:.3g} MB {one.operation} {one.result}: "
            f"{one.came_from}"
        )
    return lines


def search(step: Step, devices: Devices, made: Compiled) -> Largest:
    """How large a step may be to fit as a run plans with it; begins with one that is compiled."""

    @cache
    def needed(parts: int) -> int | None:
        size = parts * step.least
        found = made if size == made.size else compile_step(step, size)
        told = "too much" if found.bytes is None else f"{found.bytes / 1e9:.3g} GB"
        print(f"{size} {step.counted}: {told} of each device", flush=True)
        return found.bytes

    found = largest(needed, made.size // step.least, int(USABLE * devices.memory))
    each = None if found.bytes_each is None else found.bytes_each / step.least
    return Largest(step.least * found.size, each)


def largest(needed: Callable[[int], int | None], size: int, usable: int) -> Largest:
    """The largest size whose bytes are usable, sought on the line through two sizes.

    Where bytes grow by the same for each more, three sizes are asked for.

    Args:
      needed: bytes of a size; None for too many.
      size: to begin with.
      usable: bytes.

    Returns:
      A size that was seen to fit, 0 where there is none; where bytes grow unevenly, or are too many
      to tell, there may be one somewhat larger.
    """

    def beyond(size: int) -> float:
        found = needed(size)
        return inf if found is None else found - usable

    while size and beyond(size) > 0:
        size //= 2
    if not size:
        return Largest(0, None)
    other = 2 * size if beyond(2 * size) < inf else size // 2
    if not other:
        return Largest(size, None)
    while True:
        each = (beyond(other) - beyond(size)) / (other - size)
        guess = size + int(-beyond(size) / each)
        while beyond(guess) == inf:
            guess = (size + guess) // 2
        if beyond(guess) <= 0:
            return Largest(guess, each)
        other = guess
