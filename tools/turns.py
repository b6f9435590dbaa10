"""Runs timed in turns, so that a machine whose speed drifts is unfair to none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Seconds that one stays at it before the next one's turn.
_STRETCH = 0.3


class Turn(NamedTuple):
    """Median seconds of a run but for those of the first turn, which may compile; and what it gave
    last."""

    seconds: float
    made: Any


def in_turns(runs: Sequence[Callable[[], Any]], least: int, lasting: float = 0.0) -> list[Turn]:
    """So many turns at least, and until so many seconds are over. In its turn a run is repeated for
    a while where it is short, and then not timed at first: threads of the one before may spin on
    for some milliseconds, and the caches are full of its data."""
    seconds: list[list[float]] = [[] for _ in runs]
    made: list[Any] = [None for _ in runs]
    turns, began = 0, time.perf_counter()
    while turns < least or time.perf_counter() - began < lasting:
        for number, run in enumerate(runs):
            times: list[float] = []
            while sum(times) < _STRETCH:
                start = time.perf_counter()
                made[number] = run()
                times.append(time.perf_counter() - start)
            if turns:
                seconds[number] += times[1:] or times
        turns += 1
    return [Turn(float(np.median(s)), last) for s, last in zip(seconds, made, strict=True)]
