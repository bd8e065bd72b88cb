"""Timing functions against each other in one run, so that a busy machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

TURN = 0.05  # seconds: long enough that each finds its own data in the caches, as in a loop


def take_turns(*functions: Callable, rounds: int = 5, seconds: float = 5.0) -> list[float]:
    """Seconds a call of each function: the median over rounds of turns of at least `TURN`.

    Every function must wait for what it computes, and have been called before.
    """
    times = [[] for _ in functions]
    start = time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - start < seconds:
        for function, mine in zip(functions, times, strict=True):
            calls, before, passed = 0, time.perf_counter(), 0.0
            while passed < TURN:
                function()
                calls, passed = calls + 1, time.perf_counter() - before
            mine.append(passed / calls)
    return [float(np.median(mine)) for mine in times]
