"""Ranges of a config's fields, checked before anything is built or any data are opened."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.core.options import LEAST, MOST, MOST_INT, check_value
from gsdd_jax.rasterizer.limits import MAX_SIDE
from gsdd_jax.runs.workdir import dotted

AT_LEAST_ONE, AT_LEAST_ZERO = (1, MOST_INT), (0, MOST_INT)
SEED = (0, 2**32 - 1)  # JAX takes 32 bits of it
# Beyond any use, and no file's to ask for: what has more never ends, or memory ends first.
NETWORKS, EPOCHS = (1, 10_000), (1, 100_000)
POSITIVE = (LEAST, MOST)

INTEGERS = {
    "seed": SEED,
    "mesh.devices": AT_LEAST_ZERO,
    "mesh.groups": AT_LEAST_ZERO,
    "data.resolution": (0, MAX_SIDE),
    "budget.ipc": (1, 100_000),
    "budget.gpc": AT_LEAST_ONE,
    "init.num_steps": AT_LEAST_ZERO,
    "init.halve_means_every": AT_LEAST_ZERO,
    "experts.num_experts": NETWORKS,
    "experts.epochs": EPOCHS,
    "experts.batch_size": AT_LEAST_ONE,
    "experts.at_once": NETWORKS,
    "experts.seed": SEED,
    "distill.steps_per_call": AT_LEAST_ONE,
    "distill.checkpoint_every": AT_LEAST_ONE,
    "distill.num_steps": AT_LEAST_ZERO,
    "distill.eval_every": AT_LEAST_ZERO,
    "distill.snapshot_every": AT_LEAST_ZERO,
    "evaluate.num_networks": NETWORKS,
    "evaluate.epochs": EPOCHS,
    "evaluate.batch_size": AT_LEAST_ONE,
}
NUMBERS = {
    "scale": (LEAST, 1),
    "init.learning_rate": POSITIVE,
    "experts.learning_rate": POSITIVE,
    "distill.learning_rate": POSITIVE,
    "distill.average": (0, 0.9999999),  # the last float32 below 1, or nearly
    "evaluate.learning_rate": POSITIVE,
}
# Of a component's own fields the component knows the ranges.
OPTIONS = ("parameterization.options.", "network.options.", "matching.options.")


def every(config: ConfigDict, undecided: Collection[str] = ()) -> None:
    """Raises UsageError, naming it, for the first field of a config that is out of its range.

    Fields that are `undecided` may be 0.
    """
    groups = {name.partition(".")[0] for name in dotted(config.to_dict())}
    ranges(config, *groups, undecided=undecided)
    options(config)


def ranges(config: ConfigDict, *groups: str, undecided: Collection[str] = ()) -> None:
    """Raises UsageError, naming the first of the config's fields that is out of its range.

    Only the fields of `groups` ("distill", or a field of none such as "seed") are looked at: what
    a command does not use may be anything. Fields that are `undecided` may be 0.
    """
    for name, value in dotted(config.to_dict()).items():
        if name.partition(".")[0] in groups and not (name in undecided and value == 0):
            field(name, value)


def field(name: str, value: Any) -> None:
    """Raises UsageError, naming it, where a field's value is out of its range."""
    if name in INTEGERS:
        check_value(f"config.{name}", "int", value, INTEGERS[name])
    elif name in NUMBERS:
        check_value(f"config.{name}", "float", value, NUMBERS[name])
    elif isinstance(value, str) and not name.startswith(OPTIONS):
        check_value(f"config.{name}", "str", value)


def options(config: ConfigDict) -> None:
    """Raises UsageError, naming it, for an option that a component does not have, or that is out
    of its range."""
    for build, part in (
        (parameterizations.kind_of, config.parameterization),
        (networks.architecture, config.network),
        (matching.kind_of, config.matching),
    ):
        build(part.name, dict(part.options))
