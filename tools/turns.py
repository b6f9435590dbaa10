"""Runs timed in turns, so that a machine whose speed drifts is unfair to none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Turn(NamedTuple):
    """Median seconds of a run but for its first, which may compile; and what it gave last."""

    seconds: float
    made: Any


def in_turns(runs: Sequence[Callable[[], Any]], least: int, lasting: float = 0.0) -> list[Turn]:
    """Each run so often at least, and until so many seconds are over."""
    seconds: list[list[float]] = [[] for _ in runs]
    made: list[Any] = [None for _ in runs]
    began = time.perf_counter()
    while len(seconds[0]) < least or time.perf_counter() - began < lasting:
        for number, run in enumerate(runs):
            start = time.perf_counter()
            made[number] = run()
            seconds[number].append(time.perf_counter() - start)
    return [Turn(float(np.median(s[1:])), last) for s, last in zip(seconds, made, strict=True)]
