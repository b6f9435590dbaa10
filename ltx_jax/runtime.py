"""What a program sets before it first uses JAX."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax


def prepare() -> None:
    """Use every processor core, and compile nothing twice."""
    use_every_core()
    keep_compiled()


def use_every_core() -> None:
    """Make each processor core a device of its own.

    The small products of each image's own weights keep one core busy at best; a device a core
    keeps all of them. Without effect on accelerators, and where `XLA_FLAGS` say how many there are.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        affinity = getattr(os, "sched_getaffinity", None)  # Linux: cores this process may use
        cores = len(affinity(0)) if affinity else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores or 1)


def keep_compiled() -> None:
    """Keep compiled programs in the user's cache directory, or where JAX was told to."""
    told: Any = jax.config
    if told.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "ltx_jax" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
