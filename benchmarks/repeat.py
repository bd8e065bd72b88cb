"""A function many times in one compiled call, so that its time is not that of dispatching it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

UNROLLED = 4  # of what is repeated often: an iteration of the loop has a small kernel of its own
OFTEN = 100
CALL_SECONDS = 0.05  # of a call, counted in single calls: some ms where those are mostly dispatch
MOST = 1000


def repeated(function: Callable, times: int) -> Callable:
    """`function`, computed `times` times one after the other in one call; the last one's result.

    The arguments of each pass a barrier together with the result of the one before, so that none
    can be merged with another, moved out of the loop or left out. XLA takes the barriers away
    only after scheduling on a GPU. (On a CPU it does so before it optimises: do not use it there.)
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
    """How often to repeat what takes `seconds` in a single call."""
    times = CALL_SECONDS / seconds
    return 1 if times < 2 else min(MOST, math.ceil(times / UNROLLED) * UNROLLED)


def best(function: Callable, *arguments, rounds: int = 5) -> float:
    """The least seconds of a call, after one to warm up."""
    jax.block_until_ready(function(*arguments))
    found = []
    for _ in range(rounds):
        before = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        found.append(time.perf_counter() - before)
    return min(found)
