"""Measures time and memory by resolution and batch, up to the largest that fit (Figure 5).

    python -m launch.benchmark size --out=size.json

Forward and backward, compared with a SIREN decode of the same bytes. Gaussians are fitted to real
images once and rendered at every resolution. Sweeps double until the device's memory is exceeded;
a CPU stops at small sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure, peers
from benchmarks.measure import best, repeated, times_for
from benchmarks.rasterize import BYTES_EACH, both_passes, fitted
from benchmarks.table import Table, device
from gsdd_jax.core.errors import UsageError
from gsdd_jax.rasterizer.gaussians import GaussianImages

GAUSSIANS, FITTED_SIZE = 85, 64


# Sweeps: varied quantity -> (batch, side), smallest first.
ON_GPU = {
    "side": [(16, 2**k) for k in range(7, 15)],
    "batch": [(2**k, 128) for k in range(6, 21)],
}
ON_CPU = {
    "side": [(2, 2**k) for k in range(4, 7)],
    "batch": [(2**k, 32) for k in range(4)],
}
COLUMNS = "sweep what batch side seconds:.3g bytes:MiB"


def main(out: str | None) -> None:
    """Prints a table."""
    on_cpu = jax.default_backend() == "cpu"
    print(f"{device()}; {measure.free() / 2**30:.1f} GiB; {GAUSSIANS} Gaussians per image")
    one = fitted(1 if on_cpu else 64, GAUSSIANS, FITTED_SIZE)
    table = Table(out, COLUMNS)
    sweeps = ON_CPU if on_cpu else ON_GPU
    for sweep, sizes in sweeps.items():
        for what, program in (("gaussians", gaussians), ("siren", siren)):
            for row in climb(sizes, what, functools.partial(program, one)):
                table.add({"sweep": sweep} | row)
    for sweep in sweeps:
        mine = [row for row in table.rows if row["sweep"] == sweep and row["fits"]]
        print(f"largest {sweep} that fits: { ({row['what']: row[sweep] for row in mine}) }")


def climb(sizes: Sequence[tuple[int, int]], what: str, program: Callable) -> Iterator[dict]:
    """Yields a row per size, up to the first that does not fit."""
    for batch, side in sizes:
        row = dict(what=what, batch=batch, side=side, seconds=None, bytes=None)
        try:
            function, shapes, make = program(batch, side)
            compiled = jax.jit(function).lower(*shapes).compile()
            row["bytes"] = measure.needed(compiled)
            if row["bytes"] < measure.free():
                row["seconds"] = timed(function, compiled, make(), row["bytes"])
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise UsageError(f"{what} at {batch} x {side}^2: {error}") from None
        row["fits"] = row["seconds"] is not None
        yield row
        if not row["fits"]:
            return


def timed(function: Callable, compiled: Callable, arguments: tuple, needed: int) -> float:
    """Returns seconds; on a GPU averaged over many in one call if short and memory allows."""
    seconds = best(compiled, *arguments, rounds=3)
    times = times_for(seconds)
    if jax.default_backend() != "gpu" or times == 1 or 2 * needed > measure.free():
        return seconds
    return best(repeated(function, times), *arguments, rounds=3) / times


def gaussians(one, batch: int, side: int):
    """Returns both passes, shapes of their arguments, and a function that makes these."""

    def render(*parameters):
        images = GaussianImages(*parameters, height=FITTED_SIZE, width=FITTED_SIZE)
        return images.render(side, side)

    repeat = lambda p: jnp.asarray(np.resize(p, (batch, *p.shape[1:])))
    return both(render, [(batch, *p.shape[1:]) for p in one], side, lambda: map(repeat, one))


def siren(one, batch: int, side: int):
    """Returns the same as `gaussians` for networks with the bytes of `one`."""
    network = peers.siren_for(side, BYTES_EACH * one[3].shape[1])
    make = lambda: jax.tree.leaves(network.init(jax.random.key(0), batch))
    tree = jax.tree.structure(jax.eval_shape(lambda: network.init(jax.random.key(0), 1)))
    decode = lambda *leaves: network.decode(jax.tree.unflatten(tree, leaves), side)
    return both(decode, [leaf.shape for leaf in jax.eval_shape(make)], side, make)


def both(render: Callable, shapes: list[tuple[int, ...]], side: int, make: Callable):
    """Returns images and the gradient of parameters, in the form of `gaussians`."""
    shapes = [(shapes[0][0], side, side, 3), *shapes]
    row = jax.random.normal(jax.random.key(1), (side, 3))  # shared: the largest take 50 GB
    arguments = lambda: (jnp.broadcast_to(row, shapes[0]), *make())
    return both_passes(render), [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes], arguments
