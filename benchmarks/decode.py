"""Decoding of images, and its gradient, compared with peers at the same bytes: time and memory.

Measurements of the figure `decode` (python -m launch.figure decode). Gaussians are fitted to real
images. All take turns in one run: ratios are the result, times depend on the machine. The sweep
"storage" decodes whole sets of every parameterization (`benchmarks.storage`).
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from benchmarks import peers, rasterize, storage
from benchmarks.measure import needed, take_turns
from benchmarks.rasterize import BYTES_EACH, Shape
from benchmarks.table import chosen
from gsdd_jax.figures.inputs import Kept
from gsdd_jax.rasterizer.gaussians import budget_bytes
from gsdd_jax.runs.progress import Reporter

SWEEPS = {  # varied quantity -> shapes, or IPC of whole sets
    "bytes": [Shape(8, count, 64, 8) for count in (11, 22, 44, 88, 176)],
    "resolution": [Shape(8, 85, size, 8) for size in (32, 64, 128, 256)],
    "batch": [Shape(batch, 22, 32, batch) for batch in (1, 4, 16, 64, 256)],
    "storage": [1, 4],
}
NAMES = {"native": "Gaussians", "siren": "SIREN"}
VALUES = {
    "bytes": lambda shape: BYTES_EACH * shape.gaussians,
    "resolution": lambda shape: shape.size,
    "batch": lambda shape: shape.batch,
    "storage": lambda ipc: budget_bytes(ipc, storage.SHAPE),
}
PASSES = ("forward", "both")


def measure(sweep: str, shape: Shape | int, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields a row per pass and decoder, each timed for at least `seconds`."""
    if sweep == "storage":
        yield from of_sets(shape, seconds)
        return
    batch, count, size = shape.batch, shape.gaussians, shape.size
    parameters = rasterize.fitted(batch, count, size)
    siren = peers.siren_for(size, BYTES_EACH * count).num_bytes
    for measured in PASSES:
        found = rasterize.timed(parameters, size, measured, rasterize.ALL, seconds)
        for name, contender, time in found:
            yield dict(
                sweep=sweep, value=VALUES[sweep](shape), batch=batch, size=size,
                bytes_an_image=siren if name.startswith("siren") else BYTES_EACH * count,
                measured=measured, what=NAMES.get(name.split()[0], name), seconds=time,
                temporary_bytes=contender.temporary_bytes, peak_bytes=contender.peak_bytes,
            )  # fmt: skip


def of_sets(ipc: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields a row per pass and parameterization; one call decodes the images of all classes."""
    there, programs = budget_bytes(ipc, storage.SHAPE), {}
    for name in storage.names():
        images = ipc * storage.GAUSSIANS[1] if name == storage.GAUSSIANS[0] else 0
        stored, params = storage.started(name, images, ipc)
        programs[name] = stored.images_per_class, storage.compiled(stored, params)
    for which, measured in enumerate(PASSES):
        pairs = [of[which] for _, of in programs.values()]
        times = take_turns(*(call for call, _ in pairs), seconds=len(pairs) * seconds)
        of_all = zip(programs.items(), pairs, times, strict=True)
        for (name, (images, _)), (_, program), time in of_all:
            yield dict(
                sweep="storage", value=there, batch=storage.CLASSES * images,
                size=storage.SHAPE[0], bytes_an_image=there // images, measured=measured,
                what="Gaussians" if name == storage.GAUSSIANS[0] else name, seconds=time,
                temporary_bytes=program.memory_analysis().temp_size_in_bytes,
                peak_bytes=needed(program),
            )  # fmt: skip


def rows(names: Sequence[str], seconds: float, path: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns all rows of the named sweeps (or all); rows in the file `path` are reused."""
    shapes = [
        (sweep, shape) for sweep in chosen("sweeps", names, SWEEPS) for shape in SWEEPS[sweep]
    ]
    machine = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    kept, found = Kept(path, {"machine": machine, "seconds": seconds}), []
    with Reporter(None).phase("decode", len(shapes), unit="measurement") as progress:
        for sweep, shape in shapes:
            name = f"{sweep} {VALUES[sweep](shape)}"
            found += kept.get(name, lambda one=(sweep, shape): list(measure(*one, seconds)))
            progress.advance(1)
    return found
