"""Ranges of a config's numbers, checked before anything is built."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from gsdd_jax.core.errors import UsageError
from gsdd_jax.runs.workdir import dotted


class Rule(NamedTuple):
    """What is expected of a number, and whether it holds."""

    expected: str
    holds: Callable[[float], bool]


AT_LEAST_ONE = Rule("at least 1", lambda value: value >= 1)
AT_LEAST_ZERO = Rule("at least 0", lambda value: value >= 0)
POSITIVE = Rule("a positive number", lambda value: value > 0 and math.isfinite(value))
BELOW_ONE = Rule("from 0 to below 1", lambda value: 0 <= value < 1)
# JAX takes 32 bits of a seed.
SEED = Rule(f"0 to {2**32 - 1}", lambda value: 0 <= value < 2**32)

RULES = {
    "seed": SEED,
    "mesh.devices": AT_LEAST_ZERO,
    "mesh.groups": AT_LEAST_ZERO,
    "data.resolution": AT_LEAST_ZERO,
    "budget.ipc": AT_LEAST_ONE,
    "init.num_steps": AT_LEAST_ZERO,
    "init.halve_means_every": AT_LEAST_ZERO,
    "init.learning_rate": POSITIVE,
    "experts.num_experts": AT_LEAST_ONE,
    "experts.epochs": AT_LEAST_ONE,
    "experts.batch_size": AT_LEAST_ONE,
    "experts.at_once": AT_LEAST_ONE,
    "experts.seed": SEED,
    "experts.learning_rate": POSITIVE,
    "distill.steps_per_call": AT_LEAST_ONE,
    "distill.checkpoint_every": AT_LEAST_ONE,
    "distill.num_steps": AT_LEAST_ZERO,
    "distill.eval_every": AT_LEAST_ZERO,
    "distill.snapshot_every": AT_LEAST_ZERO,
    "distill.learning_rate": POSITIVE,
    "distill.average": BELOW_ONE,
    "evaluate.num_networks": AT_LEAST_ONE,
    "evaluate.epochs": AT_LEAST_ONE,
    "evaluate.batch_size": AT_LEAST_ONE,
    "evaluate.learning_rate": POSITIVE,
}


def ranges(config: ConfigDict, *groups: str) -> None:
    """Raises UsageError, naming the first of the config's fields that breaks its rule.

    Only the fields of `groups` ("distill", or a field of none such as "seed") are looked at: what
    a command does not use may be anything.
    """
    for field, value in dotted(config.to_dict()).items():
        rule = RULES.get(field)
        if rule and field.partition(".")[0] in groups and not rule.holds(value):
            raise UsageError(f"config.{field}: expected {rule.expected}, got {value}")
