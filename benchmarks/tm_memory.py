"""Temporary memory of one trajectory matching step against the length of the student's unroll.

Read off the compiled program's own memory analysis, at the flagship's shapes: 300 images a student
step, ConvNetD3 of width 128, second-order gradients. With every student step recomputed only the
parameters between them are kept, so memory hardly grows; with activations kept, it grows with every
step that keeps them: every third, or all.
"""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks import memory
from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.core.files import write_json
from gsdd_jax.data import transforms
from gsdd_jax.training import distill

IMAGES, CLASSES, WIDTH = 300, 10, 128
UNROLLS = (6, 20, 60)
KEEP_EVERY = (0, 3, 1)
MOST_SECONDS = 120.0  # a step that would take longer is not timed


def main(out: str | None) -> None:
    """Prints a table; writes it to `out` as JSON."""
    device = jax.devices()[0]
    print(f"{device.device_kind}, {device.platform}, jax {jax.__version__}")
    print(f"{'syn_steps':>10}{'keep every':>12}{'temporary MiB':>15}{'s a step':>10}")
    rows, per_student_step = [], None
    for keep_every in KEEP_EVERY:
        for syn_steps in UNROLLS:
            problem, arguments = step(syn_steps, keep_every)
            compiled = distill.run.lower(problem, *arguments, 1).compile()
            temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20
            expected = (per_student_step or 0) * syn_steps
            fits = temporary < memory.free() / 2**20
            seconds = timed(compiled, arguments) if fits and expected < MOST_SECONDS else None
            if per_student_step is None and seconds:
                per_student_step = seconds / syn_steps
            rows.append(
                dict(syn_steps=syn_steps, keep_every=keep_every, temporary_mib=temporary,
                     seconds=seconds)
            )  # fmt: skip
            shown = f"{seconds:10.2f}" if seconds else f"{'-':>10}"
            print(f"{syn_steps:10d}{keep_every:12d}{temporary:15.0f}{shown}", flush=True)
            if out:
                write_json(out, rows)
    for keep_every in KEEP_EVERY:
        first, last = (r for r in rows if r["keep_every"] == keep_every and
                       r["syn_steps"] in (UNROLLS[0], UNROLLS[-1]))  # fmt: skip
        growth = last["temporary_mib"] / first["temporary_mib"]
        print(f"from {UNROLLS[0]} to {UNROLLS[-1]} steps, keep every {keep_every}: x {growth:.2f}")


@functools.cache
def parts(precision: str = "default", width: int = WIDTH):
    """Network, parameterization and real images: only their shapes matter."""
    network = networks.build(
        "convnet", image_shape=(32, 32, 3), num_classes=CLASSES, width=width, precision=precision
    )
    parameterization = parameterizations.build("gaussian", (32, 32, 3), ipc=1, gpc=30)
    images = np.zeros((CLASSES, 32, 32, 3), np.uint8)
    transform = transforms.Normalize(jnp.full(3, 0.5), jnp.full(3, 0.25))
    data = matching.real_data(images, np.arange(CLASSES, dtype=np.int32), CLASSES, transform)
    return network, parameterization, data


def step(syn_steps: int, keep_every: int, **network_settings):
    """The problem and the arguments of one distillation step."""
    network, parameterization, data = parts(**network_settings)
    objective = matching.TrajectoryMatching(network, syn_steps, IMAGES, keep_every=keep_every)
    problem = distill.Problem(parameterization, objective, CLASSES)
    key = jax.random.key(0)
    params = parameterization.init(key, jnp.zeros((IMAGES, 32, 32, 3)))
    start, _ = ravel_pytree(network.init(key))
    feed = matching.Segments(start[None, None], start[None, None] + 0.01)
    return problem, (distill.start(problem, params, 1e-3), key, data, feed)


def timed(compiled, arguments) -> float:
    """Seconds of one step, after one to warm up."""
    seconds = None
    for _ in range(2):
        fresh = jax.tree.map(jnp.copy, arguments)  # the state is donated
        before = time.perf_counter()
        jax.block_until_ready(compiled(*fresh))
        seconds = time.perf_counter() - before
    return seconds
