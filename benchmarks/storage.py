"""Decoding of a set by every parameterization at equal bytes, and its gradient: time and memory.

The set is that of CIFAR-10 in the bytes of one float32 image per class. Its images begin as a run's
do, from real ones. Each takes turns with the Gaussians: ratios are the result.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

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
    for name, kind in parameterizations.known().items():
        if name != GAUSSIANS[0] and not kind.needs_file:
            stored, params = started(name)
            programs = compiled(stored, params)
            table.add(row(name, stored.images_per_class, programs, gaussians))


def started(name: str, images_per_class: int = 0) -> tuple[Parameterization, Params]:
    """Returns a parameterization and its parameters at the start of a run."""
    there = budget_bytes(1, SHAPE)
    images_per_class = images_per_class or parameterizations.find(name).suggested_images(
        SHAPE, there, {}
    )
    stored = parameterizations.build(
        name, SHAPE, images_per_class=images_per_class, num_classes=CLASSES
    )
    train = data.load("cifar10_mini").train
    first = jnp.concatenate(
        [
            jnp.asarray(train.images[train.labels == c][: stored.images_per_class])
            for c in range(CLASSES)
        ]
    )
    return stored, stored.init(jax.random.key(0), first / 255)


def compiled(stored: Parameterization, params: Params) -> list[tuple[Callable, int]]:
    """Returns calls of decoding alone and with the gradient, and the bytes of each program."""
    count = CLASSES * stored.images_per_class
    cotangent = jax.random.normal(jax.random.key(1), (count, *SHAPE))

    def both(params):
        images, pull = jax.vjp(stored.render, params)
        return images, pull(cotangent)

    found = []
    for function in (stored.render, both):
        program = jax.jit(function).lower(params).compile()
        jax.block_until_ready(program(params))
        found.append((lambda p=program: jax.block_until_ready(p(params)), needed(program)))
    return found


def row(name: str, images: int, programs: list, gaussians: list) -> dict[str, object]:
    """Returns the seconds and ratios of a parameterization, in turns with the Gaussians."""
    found = {"name": name, "images_per_class": images}
    for measured, (call, size), (other, _) in zip(
        ("forward", "both"), programs, gaussians, strict=True
    ):
        mine, theirs = take_turns(call, other, seconds=SECONDS)
        found |= {
            f"{measured}_ms": 1e3 * mine,
            f"{measured}_of_gaussians": mine / theirs,
            f"{measured}_of_gaussians_per_image": mine / theirs * GAUSSIANS[1] / images,
            f"{measured}_bytes": size,
        }
    return found
