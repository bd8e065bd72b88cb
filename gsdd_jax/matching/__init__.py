"""Distillation objectives, one file each, found by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import check_names, check_values
from gsdd_jax.matching.base import Draws, Matching, RealData, Synthetic, Trajectories, real_data
from gsdd_jax.matching.distribution import DistributionMatching
from gsdd_jax.matching.gradient import GradientMatching
from gsdd_jax.matching.trajectory import Segments, TrajectoryMatching
from gsdd_jax.networks import Network

__all__ = [
    "DistributionMatching",
    "Draws",
    "GradientMatching",
    "Matching",
    "RealData",
    "Segments",
    "Synthetic",
    "Trajectories",
    "TrajectoryMatching",
    "build",
    "real_data",
]

BY_NAME = {kind.name: kind for kind in (DistributionMatching, GradientMatching, TrajectoryMatching)}


def build(
    name: str,
    *,
    network: Network,
    num_classes: int,
    images_per_class: int,
    strategy: str,
    **options: Any,
) -> Matching:
    """The objective `name` for a synthetic set.

    Args:
      name: one of `BY_NAME`.
      network: that matches.
      num_classes, images_per_class: of the synthetic set.
      strategy: of the augmentation.
      **options: the other fields of the objective's dataclass.

    Raises:
      UsageError: for an unknown name or option, or one of a wrong type or range.
    """
    if name not in BY_NAME:
        raise UsageError(
            f"config.matching.name: expected one of {', '.join(BY_NAME)}, got {name!r}"
        )
    kind = BY_NAME[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    given = dict(network=network, num_classes=num_classes, strategy=strategy)
    given = {field: value for field, value in given.items() if field in fields}
    where = "config.matching.options"
    check_names(kind, options, fields - given.keys(), where)
    check_values(kind, options, kind.limits, f"{where}.")
    objective = kind(**given, **options)
    objective.check(num_classes, images_per_class)
    return objective
