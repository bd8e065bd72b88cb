"""The native rasterizer beside the `jax.numpy` reference, on Gaussians fitted to real images.

Both are timed in one run, taking turns, so that a busy machine slows both; the ratio is the result.
"""

from __future__ import annotations

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import gsdd_jax
from gsdd_jax import data, gaussians
from gsdd_jax.files import write_atomically

SHAPES = (  # images, Gaussians an image, pixels a side
    (64, 22, 32),
    (8, 170, 128),
)
FIT_STEPS = 300


def main(out: str | None) -> None:
    """Prints a table of milliseconds and ratios; writes them to `out` as JSON."""
    device = jax.devices()[0]
    print(f"{device.device_kind}, {device.platform}, jax {jax.__version__}")
    header = ("B", "N", "size", "Gaussians", "pass", "native ms", "reference ms", "ratio")
    print(("{:>6}" * 3 + "{:>11}{:>10}" + "{:>14}" * 3).format(*header))
    rows = []
    for batch, count, size in SHAPES:
        for kind in ("random", "fitted"):
            parameters = parameters_of(kind, batch, count, size)
            for name in ("forward", "both"):
                native, reference = (
                    timed(name, parameters, size, backend) for backend in ("native", "reference")
                )
                seconds = take_turns(native, reference)
                row = dict(
                    batch=batch, gaussians=count, size=size, kind=kind, measured=name,
                    native_ms=1e3 * seconds[0], reference_ms=1e3 * seconds[1],
                    ratio=seconds[1] / seconds[0],
                )  # fmt: skip
                rows.append(row)
                print(
                    f"{batch:6d}{count:6d}{size:6d}{kind:>11}{name:>10}{row['native_ms']:14.3f}"
                    f"{row['reference_ms']:14.1f}{row['ratio']:14.1f}"
                )
    if out:
        write_atomically(out, json.dumps(rows, indent=2).encode())


def parameters_of(kind: str, batch: int, count: int, size: int) -> tuple:
    """Random initial Gaussians, or those fitted to training images of `cifar10_mini`."""
    key = jax.random.key(0)
    if kind == "random":
        g = gaussians.init(key, batch, count, height=size, width=size)
    else:
        images = data.load("cifar10_mini").train.images[:batch]
        resized = [np.asarray(Image.fromarray(i).resize((size, size))) for i in images]
        pixels = jnp.asarray(np.stack(resized), jnp.float32) / 255
        g, _ = gsdd_jax.fit_images(key, pixels, count, num_steps=FIT_STEPS, learning_rate=0.05)
    return g.means, g.cholesky, g.colors, g.opacities


def timed(name: str, parameters: tuple, size: int, backend: str):
    """A compiled, warmed-up call of one pass."""
    render = lambda *p: gsdd_jax.rasterize(*p, height=size, width=size, backend=backend)
    if name == "forward":
        function = jax.jit(render)
    else:
        cotangent = jax.random.normal(jax.random.key(1), render(*parameters).shape)
        function = jax.jit(lambda *p: (*jax.vjp(render, *p)[1](cotangent), render(*p)))
    jax.block_until_ready(function(*parameters))
    return lambda: jax.block_until_ready(function(*parameters))


def take_turns(*functions, at_least: int = 5, seconds: float = 5.0) -> list[float]:
    """The median time of each function, called in turn until `seconds` have passed."""
    times = [[] for _ in functions]
    start = time.perf_counter()
    while len(times[0]) < at_least or time.perf_counter() - start < seconds:
        for function, mine in zip(functions, times, strict=True):
            before = time.perf_counter()
            function()
            mine.append(time.perf_counter() - before)
    return [float(np.median(mine)) for mine in times]
