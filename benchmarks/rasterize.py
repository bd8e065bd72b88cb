"""Compares the native rasterizer with peers, on fitted and on random Gaussians.

    python -m launch.benchmark rasterize
    python -m launch.benchmark rasterize --peers --out=rasterize.json

The `jax.numpy` reference takes part if its dense arrays fit; --peers adds a SIREN decode of the
same bytes, and gsplat if it can be imported. All take turns in one run: ratios are the result,
times depend on the machine. On a GPU each is repeated inside one call, to leave out dispatch. The
shapes are as in docs/performance.md; a CPU takes a part of each batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import gsdd_jax
from benchmarks import bounds, peers, table
from benchmarks.measure import best, left_out, needed, repeated, take_turns, times_for
from gsdd_jax import data
from gsdd_jax.rasterizer import gaussians

FIT_STEPS = 300
BYTES_EACH = 18  # per Gaussian of three channels
MOST_REFERENCE_BYTES = 3 * 2**30  # per dense array


@dataclasses.dataclass(frozen=True)
class Shape:
    """A batch of images (`cpu_batch` on a CPU) of fitted Gaussians, or of initial ones."""

    batch: int
    gaussians: int
    size: int
    cpu_batch: int
    random: bool = False


SHAPES = {
    "A": Shape(300, 22, 32, cpu_batch=64),
    "B": Shape(1600, 42, 32, cpu_batch=64),
    "C": Shape(2500, 136, 32, cpu_batch=32),
    "D": Shape(640, 170, 128, cpu_batch=8),
    "E": Shape(2000, 54, 128, cpu_batch=8),
    "F": Shape(64, 2000, 512, cpu_batch=1),
    "R": Shape(300, 22, 32, cpu_batch=64, random=True),  # A before the fit
}
ALL = ("reference", "siren", "gsplat")
COLUMNS = (
    "shape batch gaussians size measured what seconds:.4g images_per_second:.4g "
    "pairs_per_second:.3g fraction_of_bound:.1% peak_bytes:MiB ratio:.2f"
)


def main(out: str | None, shapes: str = "", with_peers: bool = False) -> None:
    """Prints a table."""
    names = table.chosen("shapes", shapes.upper().split(","), SHAPES)
    device, reached = jax.devices()[0], bounds.measure_machine()
    machine = bounds.machine_of(device, reached)
    print(
        f"{table.device()}; reaches {reached.multiply_adds:.3g} multiply-adds/s and "
        f"{reached.bandwidth:.3g} bytes/s; bounds by {machine.multiply_adds:.3g} and "
        f"{machine.bandwidth:.3g}"
    )
    if with_peers and (why := peers.gsplat_unavailable()):
        print(f"gsplat is left out: {why}")
    about = dict(
        device=device.device_kind, platform=device.platform, jax=jax.__version__,
        reached=dataclasses.asdict(reached), machine=dataclasses.asdict(machine),
    )  # fmt: skip
    kinds, found = ALL if with_peers else ALL[:1], table.Table(out, COLUMNS, about)

    for name in names:
        with left_out(f"shape {name}"):
            for row in compare(name, SHAPES[name], machine, kinds):
                found.add(row)


def compare(
    name: str, shape: Shape, machine: bounds.Machine, kinds: Sequence[str]
) -> Iterator[dict]:
    """Yields a row per pass and contender of a shape."""
    batch = shape.cpu_batch if jax.default_backend() == "cpu" else shape.batch
    count, size = shape.gaussians, shape.size
    parameters = (initial if shape.random else fitted)(batch, count, size)
    pairs = bounds.count_pairs(parameters[0], parameters[1], parameters[3], size)
    for measured in ("forward", "both"):
        least, native = bounds.seconds(machine, measured, pairs, batch, count, size), None
        for what, contender, time in timed(parameters, size, measured, kinds):
            native, rasterizes = native or time, "siren" not in what
            yield dict(
                shape=name, batch=batch, gaussians=count, size=size, measured=measured, what=what,
                seconds=time, images_per_second=batch / time, pairs=pairs,
                pairs_per_second=pairs / time if rasterizes else None, bound_seconds=least,
                fraction_of_bound=least / time if rasterizes else None,
                peak_bytes=contender.peak_bytes, ratio=time / native, repeated=contender.times,
            )  # fmt: skip


def timed(
    parameters, size: int, measured: str, kinds: Sequence[str], seconds: float = 5.0
) -> Iterator[tuple[str, Contender, float]]:
    """Yields contenders and the seconds of a pass, native first, in turns of at least `seconds`."""
    contenders = contenders_of(parameters, size, measured, kinds)
    calls = take_turns(*(c.call for c in contenders.values()), seconds=seconds)
    for (what, contender), call in zip(contenders.items(), calls, strict=True):
        yield what, contender, call / contender.times


def fitted(batch: int, count: int, size: int) -> tuple[jax.Array, ...]:
    """Returns Gaussians fitted to at most 64 training images of `cifar10_mini`, repeated."""
    different = min(batch, 64 if count * size**2 < 2**21 else 8)
    images = data.load("cifar10_mini").train.images[:different]
    resized = [np.asarray(Image.fromarray(i).resize((size, size))) for i in images]
    pixels = jnp.asarray(np.stack(resized), jnp.float32) / 255
    g, _ = gsdd_jax.fit_images(
        jax.random.key(0), pixels, count, num_steps=FIT_STEPS, learning_rate=0.05
    )
    return tuple(jnp.resize(p, (batch, *p.shape[1:])) for p in jax.tree.leaves(g))


def initial(batch: int, count: int, size: int) -> tuple[jax.Array, ...]:
    """Returns random Gaussians, as before a fit."""
    g = gaussians.init(jax.random.key(0), batch, count, height=size, width=size)
    return tuple(jax.tree.leaves(g))


class Contender(NamedTuple):
    """A decoder to time."""

    call: Callable[[], object]  # waits for its result
    times: int  # renderings per call
    peak_bytes: int
    temporary_bytes: int = 0  # part of the peak; 0 if unknown


def contenders_of(
    parameters, size: int, measured: str, kinds: Sequence[str]
) -> dict[str, Contender]:
    """Returns the native rasterizer and the available `kinds` of `ALL`, each called once.

    A peer that fails is skipped.
    """
    batch, count = parameters[3].shape
    rasterizer = lambda backend: (
        lambda *p: gsdd_jax.rasterize(*p, height=size, width=size, backend=backend)
    )
    found = {"native": compiled(rasterizer("native"), measured, parameters)}
    makers = {}
    if "reference" in kinds and 4 * batch * count * 4 * size**2 <= MOST_REFERENCE_BYTES:
        makers["reference"] = lambda: compiled(rasterizer("reference"), measured, parameters)
    if "siren" in kinds:
        siren = peers.siren_for(size, BYTES_EACH * count)

        def decoded():
            weights = tuple(siren.init(jax.random.key(0), batch))
            return compiled(lambda *p: siren.decode(p, size), measured, weights)

        makers[f"siren {siren.layers}x{siren.width}"] = decoded
    if "gsplat" in kinds and peers.gsplat_unavailable() is None:

        def of_gsplat(kind):
            gsplat = kind(parameters, size, measured == "both")
            return Contender(gsplat, gsplat.times, gsplat.peak_bytes())

        makers["gsplat"] = lambda: of_gsplat(peers.Gsplat)
        makers["gsplat kernels"] = lambda: of_gsplat(peers.GsplatKernels)
    found["native"].call()
    for name, make in makers.items():
        with left_out(name):
            contender = make()
            contender.call()
            found[name] = contender
    return found


def compiled(render: Callable, measured: str, parameters: tuple) -> Contender:
    """Compiles a forward pass, or forward and backward; on a GPU many per call.

    Counts the bytes of a single one, without the cotangent.
    """
    function, arguments, given = render, parameters, 0
    if measured == "both":
        shape = jax.eval_shape(render, *parameters).shape
        cotangent = jax.random.normal(jax.random.key(1), shape)
        function = both_passes(render)
        arguments, given = (cotangent, *parameters), cotangent.nbytes
    single, times = jax.jit(function), 1
    program = single.lower(*arguments).compile()
    peak, temporary = needed(program) - given, program.memory_analysis().temp_size_in_bytes
    call = single
    if jax.default_backend() == "gpu":
        times = times_for(best(single, *arguments))
        call = repeated(function, times) if times > 1 else single
    return Contender(lambda: jax.block_until_ready(call(*arguments)), times, peak, temporary)


def both_passes(render: Callable) -> Callable:
    """Returns a function of images' cotangent and parameters to images and gradient."""

    def function(cotangent, *parameters):
        images, pull_back = jax.vjp(render, *parameters)
        return images, pull_back(cotangent)

    return function
