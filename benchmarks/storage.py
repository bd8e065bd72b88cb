"""Decoding of a set by every parameterization at equal bytes, and its gradient: time and memory.

The set is that of CIFAR-10 in the bytes of one float32 image per class. Its images begin as a run's
do, from real ones. Each takes turns with the Gaussians: ratios are the result.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import needed, take_turns
from benchmarks.table import Table
from gsdd_jax import data, parameterizations
from gsdd_jax.parameterizations.base import Parameterization, Params
from gsdd_jax.rasterizer.gaussians import budget_bytes

SHAPE, CLASSES = (32, 32, 3), 10
GAUSSIANS = "gaussian", 30  # images per class
SECONDS = 2.0
COLUMNS = (
    "name images_per_class forward_ms:.3f forward_of_gaussians:.2f both_ms:.3f "
    "both_of_gaussians:.2f both_of_gaussians_per_image:.2f both_bytes:MiB"
)


def main(out: str | None) -> None:
    table = Table(out, COLUMNS)
    gaussians = compiled(*started(*GAUSSIANS))
    table.add(row(GAUSSIANS[0], GAUSSIANS[1], gaussians, gaussians))
    for name in names():
        if name != GAUSSIANS[0]:
            stored, params = started(name)
            programs = compiled(stored, params)
            table.add(row(name, stored.images_per_class, programs, gaussians))


def names() -> list[str]:
    """Returns the parameterizations that need no file of the user."""
    known = parameterizations.known().items()
    return [name for name, kind in known if not kind.needs_file]


def started(name: str, images_per_class: int = 0, ipc: int = 1) -> tuple[Parameterization, Params]:
    """Returns a parameterization and its parameters at the start of a run.

    The budget is the bytes of `ipc` float32 images per class. Real images repeat where there are
    too few.
    """
    there = budget_bytes(ipc, SHAPE)
    images_per_class = images_per_class or parameterizations.find(name).suggested_images(
        SHAPE, there, {}
    )
    stored = parameterizations.build(
        name, SHAPE, ipc=ipc, images_per_class=images_per_class, num_classes=CLASSES
    )
    train = data.load("cifar10_mini").train
    of_classes = [np.flatnonzero(train.labels == c) for c in range(CLASSES)]
    places = [np.resize(of_class, stored.images_per_class) for of_class in of_classes]
    first = jnp.asarray(train.images[np.concatenate(places)])
    return stored, stored.init(jax.random.key(0), first / 255)


def compiled(
    stored: Parameterization, params: Params
) -> list[tuple[Callable, jax.stages.Compiled]]:
    """Returns calls of decoding alone and with the gradient, and the program of each."""
    count = CLASSES * stored.images_per_class
    cotangent = jax.random.normal(jax.random.key(1), (count, *SHAPE))

    def both(params):
        images, pull = jax.vjp(stored.render, params)
        return images, pull(cotangent)

    found = []
    for function in (stored.render, both):
        program = jax.jit(function).lower(params).compile()
        jax.block_until_ready(program(params))
        found.append((lambda p=program: jax.block_until_ready(p(params)), program))
    return found


def row(name: str, images: int, programs: list, gaussians: list) -> dict[str, object]:
    """Returns the seconds and ratios of a parameterization, in turns with the Gaussians."""
    found = {"name": name, "images_per_class": images}
    for measured, (call, program), (other, _) in zip(
        ("forward", "both"), programs, gaussians, strict=True
    ):
        mine, theirs = take_turns(call, other, seconds=SECONDS)
        found |= {
            f"{measured}_ms": 1e3 * mine,
            f"{measured}_of_gaussians": mine / theirs,
            f"{measured}_of_gaussians_per_image": mine / theirs * GAUSSIANS[1] / images,
            f"{measured}_bytes": needed(program),
        }
    return found
