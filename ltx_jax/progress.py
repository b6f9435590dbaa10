"""What a run says of itself while it goes on, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
