"""Temporary memory of one trajectory matching step against the length of the student's unroll.

Read off the compiled program's memory analysis, at the flagship's shapes: 300 images per student
step, ConvNetD3 of width 128, second-order gradients. Recomputation keeps only the parameters
between student steps: memory hardly grows. Kept activations, of every third step or all, make it
grow.
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp

from benchmarks import memory, steps
from benchmarks.table import Table, device

IMAGES, WIDTH = 300, 128
UNROLLS = (6, 20, 60)
KEEP_EVERY = (0, 3, 1)
MOST_SECONDS = 120.0  # slower steps are not timed
COLUMNS = "syn_steps keep_every temporary_mib:.0f seconds:.2f"


def main(out: str | None) -> None:
    """Prints a table."""
    print(device())
    table, per_student_step = Table(out, COLUMNS), 0.0
    for keep_every in KEEP_EVERY:
        for syn_steps in UNROLLS:
            compiled, arguments = steps.matching_step(IMAGES, syn_steps, keep_every, width=WIDTH)
            temporary, seconds = compiled.memory_analysis().temp_size_in_bytes, None
            if temporary < memory.free() and per_student_step * syn_steps < MOST_SECONDS:
                seconds = timed(compiled, arguments)
                per_student_step = per_student_step or seconds / syn_steps
            table.add(
                dict(syn_steps=syn_steps, keep_every=keep_every, temporary_mib=temporary / 2**20,
                     seconds=seconds)
            )  # fmt: skip
        first, *_, last = (row["temporary_mib"] for row in table.rows[-len(UNROLLS) :])
        print(
            f"from {UNROLLS[0]} to {UNROLLS[-1]} steps, keep every {keep_every}: "
            f"x {last / first:.2f}"
        )


def timed(compiled, arguments) -> float:
    """Returns the seconds of one step, after one to warm up."""
    seconds = None
    for _ in range(2):
        fresh = jax.tree.map(jnp.copy, arguments)  # the state is donated
        before = time.perf_counter()
        jax.block_until_ready(compiled(*fresh))
        seconds = time.perf_counter() - before
    return seconds
