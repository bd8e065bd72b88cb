"""Timing of functions in turns within one run: a busy machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

TURN = 0.05  # seconds: long enough for warm caches, as in a loop


def take_turns(*functions: Callable, rounds: int = 5, seconds: float = 5.0) -> list[float]:
    """Returns seconds per call of each function: the median of all calls, in turns of `TURN`.

    Every function must wait for its result, and have been called before.
    """
    times = [[] for _ in functions]
    start, turns = time.perf_counter(), 0
    while turns < rounds or time.perf_counter() - start < seconds:
        turns += 1
        for function, mine in zip(functions, times, strict=True):
            end = time.perf_counter() + TURN
            while (before := time.perf_counter()) < end:
                function()
                mine.append(time.perf_counter() - before)
    return [float(np.median(mine)) for mine in times]
