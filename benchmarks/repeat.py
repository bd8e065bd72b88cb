"""Repetition of a function in one compiled call, to leave out the time of dispatch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

UNROLLED = 4  # if repeated often: each iteration of the loop has its own small kernel
OFTEN = 100
CALL_SECONDS = 0.05  # a call, by the time of single calls: some ms if mostly dispatch
MOST = 1000


def repeated(function: Callable, times: int) -> Callable:
    """Returns a jitted loop that computes `function` `times` times; the last result counts.

    Each pass's arguments go through a barrier with the previous result, so that no pass is merged,
    moved out of the loop or left out. On a GPU XLA removes barriers only after scheduling. (A CPU
    removes them before optimising: do not use it there.)
    """
    unrolled = math.gcd(times, UNROLLED) if times >= OFTEN else 1

    def loop(*arguments):
        def body(_, carry):
            arguments, result = carry
            for _ in range(unrolled):
                result = function(*arguments)
                arguments, result = lax.optimization_barrier((arguments, result))
            return arguments, result

        shapes = jax.eval_shape(function, *arguments)
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return lax.fori_loop(0, times // unrolled, body, (arguments, nothing))[1]

    return jax.jit(loop)


def times_for(seconds: float) -> int:
    """Returns how often to repeat a function of `seconds` in one call."""
    times = CALL_SECONDS / seconds
    return 1 if times < 2 else min(MOST, math.ceil(times / UNROLLED) * UNROLLED)


def best(function: Callable, *arguments, rounds: int = 5) -> float:
    """Returns the least seconds of a call, after one to warm up."""
    jax.block_until_ready(function(*arguments))
    found = []
    for _ in range(rounds):
        before = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        found.append(time.perf_counter() - before)
    return min(found)
