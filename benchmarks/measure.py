"""Seconds of functions, memory of programs, and isolation of what fails."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError

TURN = 0.05  # seconds: long enough for warm caches, as in a loop
UNROLLED = 4  # if repeated often: each iteration of the loop has its own small kernel
OFTEN = 100
CALL_SECONDS = 0.05  # a call, by the time of single calls: some ms if mostly dispatch
MOST = 1000


def take_turns(*functions: Callable, rounds: int = 5, seconds: float = 5.0) -> list[float]:
    """Returns the median seconds per call of each function, called in turns of `TURN`.

    A busy machine slows all of them. Every function must wait for its result, and have been called
    before.
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


def best(function: Callable, *arguments, rounds: int = 5) -> float:
    """Returns the least seconds of a call, after one to warm up."""
    jax.block_until_ready(function(*arguments))
    found = []
    for _ in range(rounds):
        before = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        found.append(time.perf_counter() - before)
    return min(found)


def repeated(function: Callable, times: int) -> Callable:
    """Returns a jitted loop that computes `function` `times` times; the last result counts.

    One call leaves out the time of dispatch. Each pass's arguments go through a barrier with the
    previous result, so that no pass is merged, moved out of the loop or left out. On a GPU XLA
    removes barriers only after scheduling. (A CPU removes them before optimizing: do not use it
    there.)
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


def needed(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes of a compiled program: arguments, results and temporaries."""
    found = compiled.memory_analysis()
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def free() -> int:
    """Returns the free bytes of the device, or of the host if the device reports none."""
    stats = jax.devices()[0].memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats else memory.available()


@contextlib.contextmanager
def left_out(what: str) -> Iterator[None]:
    """Prints a line instead of raising if `what` fails, for example for lack of memory.

    A UsageError is still raised: the next part would fail by it, too.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"{what} is left out: {type(error).__name__}: {reason}", flush=True)
