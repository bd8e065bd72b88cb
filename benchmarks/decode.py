"""Decoding of images, and its gradient, compared with peers at the same bytes: time and memory.

Measurements of the figure `decode` (python -m launch.figure decode). Gaussians are fitted to real
images. All take turns in one run: ratios are the result, times depend on the machine.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from benchmarks import peers, rasterize
from benchmarks.rasterize import BYTES_EACH, Shape
from benchmarks.table import chosen
from gsdd_jax.figures.inputs import Kept
from gsdd_jax.runs.progress import Reporter

SWEEPS = {  # varied quantity -> shapes
    "bytes": [Shape(8, count, 64, 8) for count in (11, 22, 44, 88, 176)],
    "resolution": [Shape(8, 85, size, 8) for size in (32, 64, 128, 256)],
    "batch": [Shape(batch, 22, 32, batch) for batch in (1, 4, 16, 64, 256)],
}
NAMES = {"native": "Gaussians", "siren": "SIREN"}
VALUES = {
    "bytes": lambda shape: BYTES_EACH * shape.gaussians,
    "resolution": lambda shape: shape.size,
    "batch": lambda shape: shape.batch,
}


def measure(sweep: str, shape: Shape, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields a row per pass and decoder, each timed for at least `seconds`."""
    batch, count, size = shape.batch, shape.gaussians, shape.size
    parameters = rasterize.fitted(batch, count, size)
    siren = peers.siren_for(size, BYTES_EACH * count).num_bytes
    for measured in ("forward", "both"):
        found = rasterize.timed(parameters, size, measured, rasterize.ALL, seconds)
        for name, contender, time in found:
            yield dict(
                sweep=sweep, value=VALUES[sweep](shape), batch=batch, size=size,
                bytes_an_image=siren if name.startswith("siren") else BYTES_EACH * count,
                measured=measured, what=NAMES.get(name.split()[0], name), seconds=time,
                temporary_bytes=contender.temporary_bytes, peak_bytes=contender.peak_bytes,
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
