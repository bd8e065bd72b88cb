"""Distillation objectives, one file each, found by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
    "kind_of",
    "real_data",
]

GIVEN = {"network", "num_classes", "strategy"}  # fields that are no options
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
    kind = kind_of(name, options)
    given = dict(network=network, num_classes=num_classes, strategy=strategy)
    fields = {field.name for field in dataclasses.fields(kind)}
    given = {field: value for field, value in given.items() if field in fields}
    objective = kind(**given, **options)
    objective.check(num_classes, images_per_class)
    return objective


def kind_of(name: str, options: Mapping[str, Any]) -> type[Matching]:
    """The class of the objective `name`; raises as `build` where it has no such options."""
    if name not in BY_NAME:
        raise UsageError(
            f"config.matching.name: expected one of {', '.join(BY_NAME)}, got {name!r}"
        )
    kind, where = BY_NAME[name], "config.matching.options"
    known = {field.name for field in dataclasses.fields(kind)} - GIVEN
    check_names(kind, options, known, where)
    check_values(kind, options, kind.limits, f"{where}.")
    return kind
