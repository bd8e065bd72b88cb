"""Distillation objectives, one file each, found by name."""

import dataclasses
from typing import Any

from gsdd_jax.core import kinds
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import check_options
from gsdd_jax.data.soft_labels import HARD, Labels
from gsdd_jax.matching.base import (
    Draws,
    Learned,
    Matching,
    RealData,
    Synthetic,
    Trajectories,
    Work,
    real_data,
)
from gsdd_jax.networks import Network

__all__ = ["Draws", "Learned", "Matching", "RealData", "Synthetic", "Trajectories", "Work",
           "build", "find", "known", "real_data"]  # fmt: skip


def find(name: str) -> type[Matching]:
    """Returns the objective `name`, or raises UsageError."""
    return kinds.named(__name__, Matching, name, "config.matching.name")


def known() -> dict[str, type[Matching]]:
    """Returns all objectives by name."""
    return kinds.known(__name__, Matching)


def build(
    name: str,
    *,
    network: Network,
    num_classes: int,
    images_per_class: int,
    strategy: str,
    labels: Labels = HARD,
    train_counts: tuple[int, ...] = (),
    **options: Any,
) -> Matching:
    """Builds the objective `name` for a synthetic set.

    Args:
      name: module of this package.
      network: network whose features, gradients or parameters are matched.
      num_classes, images_per_class: size of the synthetic set.
      strategy: DSA augmentations.
      labels: labels of the synthetic images; only some objectives learn them.
      train_counts: real images of each class, which private objectives need.
      **options: other fields of the objective's dataclass.

    Raises:
      UsageError: unknown name or option, or an option of a wrong type or range.
    """
    kind = find(name)
    check_options(kind, options, "config.matching.options")
    if labels.learned and not kind.learns_labels:
        able = ", ".join(n for n, k in known().items() if k.learns_labels)
        raise UsageError(f"config.labels.learned: expected False with {name}; only {able} can")
    given = dict(network=network, num_classes=num_classes, strategy=strategy, labels=labels)
    given["train_counts"] = train_counts
    fields = {field.name for field in dataclasses.fields(kind)}
    objective = kind(**{n: v for n, v in given.items() if n in fields}, **options)
    objective.check(num_classes, images_per_class)
    return objective
