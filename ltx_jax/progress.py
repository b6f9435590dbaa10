"""What a run says of itself while it goes on, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax

_COMPILING = "/jax/core/compile/backend_compile_duration"


@dataclass
class CompileClock:
    """Seconds spent compiling since it was started."""

    seconds: float = 0.0


@contextmanager
def compile_clock() -> Iterator[CompileClock]:
    """Count the compile time of everything inside the block."""
    clock = CompileClock()

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILING:
            clock.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield clock
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def progress_bar(total: int, unit: str, what: str | None = None) -> Any:
    """A bar on a terminal, and nothing elsewhere; a context manager with `update(count)`."""
    from tqdm import tqdm

    return tqdm(total=total, unit=f" {unit}", desc=what, disable=None)
