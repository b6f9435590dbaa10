"""What a run says of itself while it goes on, and what it cost."""

from __future__ import annotations

import time
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


class Pace:
    """How fast a training goes, and how long it waits for its images, since it last told."""

    def __init__(self, images: int) -> None:
        """Begin; `images` are those of a step."""
        self._images = images
        self._began, self._waited, self._steps = time.monotonic(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While nothing but waiting for images is done."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def step(self) -> None:
        """Count one."""
        self._steps += 1

    def told(self) -> dict[str, float]:
        """Images a second, and the share of the time that was spent waiting for them."""
        passed = time.monotonic() - self._began
        found = {
            "images_per_second": round(self._steps * self._images / passed, 2),
            "waiting": round(self._waited / passed, 4),
        }
        self.__init__(self._images)  # type: ignore[misc]
        return found


def progress_bar(total: int, unit: str, what: str | None = None, done: int = 0) -> Any:
    """A bar on a terminal, and nothing elsewhere; a context manager with `update(count)`."""
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit=f" {unit}", desc=what, disable=None)
