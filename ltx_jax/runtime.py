"""What a program sets before it first uses JAX, and the processes that share a run."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from ltx_jax.errors import InputError

# Numbers of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Seconds without a sign of life after which a process is given up: where each works alone a pause
# is no loss, and where all wait for it they had better end.
_LOST_ALONE, _LOST_TOGETHER = 24 * 3600, 120


def prepare() -> None:
    """Use every processor core, compile nothing twice, and keep memory for the next program; before
    JAX is first used. Later there is a warning where cores stay unused; programs are kept from here
    on."""
    use_every_core()
    keep_memory()
    keep_compiled()


def use_every_core() -> None:
    """Make each processor core a device of its own.

    The small products of each image's own weights keep one core busy at best; a device a core
    keeps all of them. Without effect on accelerators, and where `XLA_FLAGS` say how many there are.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        affinity = getattr(os, "sched_getaffinity", None)  # Linux: cores this process may use
        cores = len(affinity(0)) if affinity else os.cpu_count()
        try:
            jax.config.update("jax_num_cpu_devices", cores or 1)
        except RuntimeError:  # JAX is in use
            if jax.default_backend() == "cpu" and jax.local_device_count() < (cores or 1):
                logging.warning(
                    "JAX was used before ltx_jax.prepare(): %d of %d cores are devices; call it "
                    "first to use them all",
                    jax.local_device_count(),
                    cores,
                )


def keep_memory() -> None:
    """Have the C library keep what memory is freed, up to a gigabyte in one piece.

    A program's buffers on a CPU are made anew at each call. Given back to the system in between
    they have to be cleared by it again, up to a third of the time of a CNN's gradient. Where
    there is no glibc, or the environment says how it allocates, nothing changes.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def add_in_one_order() -> None:
    """Let a CPU add up the terms of matrix products one after another, as PyTorch does.

    For comparisons to the last digits. Left to itself XLA takes the fastest kernel for a shape,
    processor and version, each with its own order: a value near zero then ends on either side of a
    ReLU, and Adam, whose first steps go by signs, makes of that what others see. Before JAX is
    first used; without effect on accelerators, and where `XLA_FLAGS` say something else.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_enable_platform_dependent_math" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_enable_platform_dependent_math=false".strip()


def keep_compiled() -> None:
    """Keep compiled programs in the user's cache directory, or where JAX was told to."""
    told: Any = jax.config
    if told.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "ltx_jax" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        # Whatever was compiled before has told JAX that there is no cache.
        compilation_cache.reset_cache()


def join_processes(told: str, in_step: bool = False) -> None:
    """Become one of several processes, under `jax.distributed`.

    Args:
      told: `auto` where the platform knows (TPU pods, SLURM, Open MPI), or `ADDRESS:PORT,INDEX/ALL`
        with the address of process 0.
      in_step: whether they compute together, so that all end where one is lost, none leaves before
        the others, and a SIGTERM is for `termination_held`, which all are told of. Else a process
        that is lost, or done early, takes nobody with it; but for process 0, at whose address they
        meet.

    Raises:
      InputError: where it is neither, or the processes do not find each other.
    """
    stated = re.fullmatch(r"(\S+:\d+),(\d+)/(\d+)", told)
    if told != "auto" and not stated:
        raise InputError(
            f"--distributed={told}: expected auto or ADDRESS:PORT,INDEX/ALL, e.g. 10.0.0.1:1234,0/4"
        )
    who: dict[str, Any] = {}
    if stated:
        address, index, count = stated.groups()
        who = {
            "coordinator_address": address,
            "num_processes": int(count),
            "process_id": int(index),
        }
    jax.config.update("jax_enable_recoverability", not in_step)
    jax.config.update("jax_enable_preemption_service", in_step)
    lost_after = _LOST_TOGETHER if in_step else _LOST_ALONE
    try:
        jax.distributed.initialize(**who, heartbeat_timeout_seconds=lost_after)
    except (RuntimeError, ValueError) as error:
        why = str(error) if stated else "this is no TPU pod, no SLURM and no Open MPI job"
        raise InputError(
            f"--distributed={told}: {why}; expected auto there, elsewhere ADDRESS:PORT,INDEX/ALL"
        ) from error


def leave_processes() -> None:
    """Be no longer one of several; what the others do next is no concern of this one."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


class Terminated(BaseException):
    """SIGTERM, as a batch system sends it before it kills."""


@contextmanager
def termination_held() -> Iterator[Callable[[int], bool]]:
    """Hold a SIGTERM back until the work is where it can be left.

    Yields:
      Tells whether one has come. It is asked after each step, by the step's number, of which all
      processes are told the same.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield multihost_utils.reached_preemption_sync_point
        return
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield lambda _: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def together() -> Iterator[None]:
    """What every process has to manage before any goes on: where one cannot, all end.

    Raises:
      InputError: where another process could not begin, or was lost; and what this one raises.
    """
    try:
        yield
    except Exception:
        _ready(False)
        raise
    try:
        failed = np.flatnonzero(~_ready(True))
    except (RuntimeError, ValueError) as error:
        raise InputError("a process was lost before the work began: start all again") from error
    if len(failed):
        raise InputError(f"process {failed[0]} could not begin, and says why; start all once more")


def all_managed(managed: bool) -> bool:
    """Whether every process did what this one did, or not."""
    return bool(_ready(managed).all())


def _ready(ready: bool) -> np.ndarray:
    """Who is ready, process by process."""
    if jax.process_count() == 1:
        return np.array([ready])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array([ready]))).ravel()


def agreed_rows(rows: Sequence[int], total: int) -> list[int]:
    """What process 0 found waiting, by which every process goes: none is left out or done twice.

    Args:
      rows: waiting, as this process found them.
      total: rows of the whole run.
    """
    if jax.process_count() == 1:
        return list(rows)
    from jax.experimental import multihost_utils

    waiting = np.zeros(total, np.int32)
    waiting[list(rows)] = 1
    return np.flatnonzero(multihost_utils.broadcast_one_to_all(waiting)).tolist()
