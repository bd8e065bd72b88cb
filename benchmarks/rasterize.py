"""The native rasterizer beside its peers, on Gaussians fitted to real images and on random ones.

    python -m launch.benchmark rasterize
    python -m launch.benchmark rasterize --peers --out=rasterize.json --plot=rasterize.png

The `jax.numpy` reference takes part where its dense arrays fit; with --peers a SIREN decode of the
same bytes too, and gsplat where it can be imported. All take turns in one run: ratios are the
result, times depend on the machine. On a GPU each is repeated inside one call, so that none is
charged for being dispatched. The shapes are those of docs/performance.md; a CPU takes a part of
each batch. The file is written anew with each row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import gsdd_jax
from benchmarks import bounds, memory, peers
from benchmarks.left_out import left_out
from benchmarks.repeat import best, repeated, times_for
from benchmarks.turns import take_turns
from gsdd_jax import data
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_json
from gsdd_jax.rasterizer import gaussians

FIT_STEPS = 300
MOST_REFERENCE_BYTES = 3 * 2**30  # of one of its dense arrays


@dataclasses.dataclass(frozen=True)
class Shape:
    """A batch of images; `cpu_batch` of them on a CPU. Of fitted Gaussians or of initial ones."""

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
    "R": Shape(300, 22, 32, cpu_batch=64, random=True),  # A before it is fitted
}
SWEEPS = {  # of the plot: what varies, and its values
    "resolution": [Shape(8, 85, size, 8) for size in (32, 64, 128, 256)],
    "batch": [Shape(batch, 22, 32, batch) for batch in (1, 4, 16, 64, 256)],
    "bytes": [Shape(8, count, 64, 8) for count in (11, 22, 44, 88, 176)],
}
HEADER = ("shape", "B", "N", "size", "pass", "what", "ms", "images/s", "pairs/s", "bound", "MiB",
          "x native")  # fmt: skip


def main(out: str | None, shapes: str = "", with_peers: bool = False, plot: str | None = None):
    """Prints a table; writes it as JSON and draws the sweeps where asked to."""
    names = [name for name in shapes.upper().split(",") if name] or list(SHAPES)
    for name in names:
        if name not in SHAPES:
            raise UsageError(f"--shapes: expected some of {','.join(SHAPES)}, got {name!r}")
    device = jax.devices()[0]
    reached = bounds.measure_machine()
    machine = bounds.machine_of(device, reached)
    print(
        f"{device.device_kind}, {device.platform}, jax {jax.__version__}; reaches "
        f"{reached.multiply_adds:.3g} multiply-adds/s and {reached.bandwidth:.3g} bytes/s; bounds "
        f"by {machine.multiply_adds:.3g} and {machine.bandwidth:.3g}"
    )
    if with_peers and (why := peers.gsplat_unavailable()):
        print(f"gsplat is left out: {why}")
    print("{:>6}{:>6}{:>6}{:>6}{:>9}{:>15}{:>10}{:>11}{:>11}{:>8}{:>9}{:>10}".format(*HEADER))
    result = {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "reached": dataclasses.asdict(reached),
        "machine": dataclasses.asdict(machine),
        "rows": [],
    }

    def add(rows: list[dict], found: Iterator[dict]) -> None:
        for row in found:
            rows.append(row)
            if out:
                write_json(out, result)

    for name in names:
        with left_out(f"shape {name}"):
            add(result["rows"], compare(name, SHAPES[name], machine, with_peers, True))
    if plot:
        result["sweeps"] = {sweep: [] for sweep in SWEEPS}
        for sweep, members in SWEEPS.items():
            for shape in members:
                with left_out(f"{sweep}, {shape}"):
                    add(result["sweeps"][sweep], compare(sweep, shape, machine, with_peers, False))
        draw(result["sweeps"], plot)


def compare(
    name: str, shape: Shape, machine: bounds.Machine, with_peers: bool, patient: bool
) -> Iterator[dict]:
    """One shape: a row for every pass and contender, printed as they come."""
    batch = shape.cpu_batch if jax.default_backend() == "cpu" else shape.batch
    count, size = shape.gaussians, shape.size
    parameters = (initial if shape.random else fitted)(batch, count, size)
    pairs = bounds.count_pairs(parameters[0], parameters[1], parameters[3], size)
    for measured in ("forward", "both"):
        contenders = contenders_of(parameters, size, measured, with_peers)
        calls = take_turns(*(contender.call for contender in contenders.values()),
                           seconds=5.0 if patient else 1.0)  # fmt: skip
        seconds = [s / c.times for s, c in zip(calls, contenders.values(), strict=True)]
        least = bounds.seconds(machine, measured, pairs, batch, count, size)
        for (what, contender), time in zip(contenders.items(), seconds, strict=True):
            row = dict(
                shape=name, batch=batch, gaussians=count, size=size, measured=measured, what=what,
                seconds=time, images_per_second=batch / time, pairs=pairs,
                pairs_per_second=pairs / time, bound_seconds=least, fraction_of_bound=least / time,
                peak_bytes=contender.peak_bytes, ratio=time / seconds[0],
                repeated=contender.times,
            )  # fmt: skip
            rasterizes = "siren" not in what
            print(
                f"{name[:6]:>6}{batch:6d}{count:6d}{size:6d}{measured:>9}{what:>15}"
                f"{1e3 * time:10.4f}{batch / time:11.4g}"
                + (f"{pairs / time:11.3g}{least / time:8.1%}" if rasterizes else f"{'':19}")
                + f"{contender.peak_bytes / 2**20:9.1f}{row['ratio']:10.2f}",
                flush=True,
            )
            yield row


def fitted(batch: int, count: int, size: int) -> tuple[jax.Array, ...]:
    """Gaussians fitted to training images of `cifar10_mini`, at most 64 of them, repeated."""
    different = min(batch, 64 if count * size**2 < 2**21 else 8)
    images = data.load("cifar10_mini").train.images[:different]
    resized = [np.asarray(Image.fromarray(i).resize((size, size))) for i in images]
    pixels = jnp.asarray(np.stack(resized), jnp.float32) / 255
    g, _ = gsdd_jax.fit_images(
        jax.random.key(0), pixels, count, num_steps=FIT_STEPS, learning_rate=0.05
    )
    repeat = lambda p: jnp.tile(p, (-(-batch // different),) + (1,) * (p.ndim - 1))[:batch]
    return tuple(map(repeat, (g.means, g.cholesky, g.colors, g.opacities)))


def initial(batch: int, count: int, size: int) -> tuple[jax.Array, ...]:
    """Random Gaussians, as an image's are before they are fitted."""
    g = gaussians.init(jax.random.key(0), batch, count, height=size, width=size)
    return g.means, g.cholesky, g.colors, g.opacities


class Contender(NamedTuple):
    """One way to the images."""

    call: Callable[[], object]  # waits for its result
    times: int  # that it computes them in a call
    peak_bytes: int
    temporary_bytes: int = 0  # of them; 0 where that is not known


def contenders_of(parameters, size: int, measured: str, with_peers: bool) -> dict[str, Contender]:
    """Ways to the images by name, native first; all have been called.

    A peer that fails is left out.
    """
    batch, count = parameters[3].shape
    rasterizer = lambda backend: (
        lambda *p: gsdd_jax.rasterize(*p, height=size, width=size, backend=backend)
    )
    found = {"native": compiled(rasterizer("native"), measured, parameters)}
    makers = {}
    if 4 * batch * count * 4 * size**2 <= MOST_REFERENCE_BYTES:
        makers["reference"] = lambda: compiled(rasterizer("reference"), measured, parameters)
    if with_peers:
        siren = peers.siren_for(size, 18 * count)

        def decoded():
            weights = tuple(siren.init(jax.random.key(0), batch))
            return compiled(lambda *p: siren.decode(p, size), measured, weights)

        makers[f"siren {siren.layers}x{siren.width}"] = decoded
        if peers.gsplat_unavailable() is None:
            for name, kind in (("gsplat", peers.Gsplat), ("gsplat kernels", peers.GsplatKernels)):
                makers[name] = functools.partial(of_gsplat, kind, parameters, size, measured)
    found["native"].call()
    for name, make in makers.items():
        with left_out(name):
            contender = make()
            contender.call()
            found[name] = contender
    return found


def of_gsplat(kind: type[peers.Gsplat], parameters, size: int, measured: str) -> Contender:
    """gsplat, or its kernels alone, on the same Gaussians."""
    gsplat = kind(parameters, size, measured == "both")
    return Contender(gsplat, gsplat.times, gsplat.peak_bytes())


def compiled(render: Callable, measured: str, parameters: tuple) -> Contender:
    """One pass, or the forward and the backward pass; on a GPU many times in a call.

    Its bytes are those of a single one, without the cotangent.
    """
    function, arguments, given = render, parameters, 0
    if measured == "both":
        shape = jax.eval_shape(render, *parameters).shape
        cotangent = jax.random.normal(jax.random.key(1), shape)

        def function(cotangent, *p):
            images, pull_back = jax.vjp(render, *p)
            return images, pull_back(cotangent)

        arguments, given = (cotangent, *parameters), cotangent.nbytes
    single, times = jax.jit(function), 1
    program = single.lower(*arguments).compile()
    peak, temporary = memory.needed(program) - given, program.memory_analysis().temp_size_in_bytes
    call = single
    if jax.default_backend() == "gpu":
        times = times_for(best(single, *arguments))
        call = repeated(function, times) if times > 1 else single
    return Contender(lambda: jax.block_until_ready(call(*arguments)), times, peak, temporary)


def draw(sweeps: dict[str, list[dict]], path: str) -> None:
    """Forward and backward time against resolution, batch and bytes, as Figure 5 of the paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (sweep, rows) in zip(figure.subplots(1, len(sweeps)), sweeps.items(), strict=True):
        of = {"resolution": "size", "batch": "batch", "bytes": "gaussians"}[sweep]
        for what in dict.fromkeys(row["what"].split()[0] for row in rows):
            mine = [r for r in rows if r["what"].split()[0] == what and r["measured"] == "both"]
            x = [r[of] * (18 if sweep == "bytes" else 1) for r in mine]
            axes.plot(x, [1e3 * r["seconds"] for r in mine], marker="o", label=what)
        axes.set(xscale="log", yscale="log", title=sweep, ylabel="forward + backward, ms")
        axes.set_xticks(x, labels=x)
        axes.xaxis.minorticks_off()
        axes.set_xlabel({"resolution": "pixels a side", "batch": "images", "bytes": "bytes"}[sweep])
        axes.legend()
    figure.savefig(path, dpi=120)
