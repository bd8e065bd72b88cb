"""Difficulty-aligned trajectory matching, DATM (Guo et al., 2024): early epochs, learned labels."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import optax

from gsdd_jax.core.fields import POSITIVE, Shrink, field
from gsdd_jax.data.soft_labels import HARD
from gsdd_jax.matching.tm import TrajectoryMatching


@dataclasses.dataclass(frozen=True)
class DifficultyAlignedMatching(TrajectoryMatching):
    """Trajectory matching of early epochs first, which discards steps of large losses.

    Small sets follow early epochs only, larger ones later epochs, too: `max_start_epoch`, which
    grows. A step whose loss exceeds `threshold` changes nothing. Learned labels have an optimizer
    of their own, SGD with momentum 0.9, and stay on the grid of stored labels.

    The published sets learn labels from those of experts on (`labels.source=teacher`,
    `labels.learned=True`), and start from images that an expert classifies correctly
    (`init.images=recognized`).
    """

    name: ClassVar[str] = "datm"
    # Labels have a rate of their own.
    requires: ClassVar[Mapping[str, Any]] = {"labels.learning_rate": HARD.learning_rate}
    syn_steps: int = field(80, "SGD steps of the student", shrink=Shrink(0.5, 2))
    max_start_epoch: int = field(
        20, "exclusive upper bound of the student's start epoch; published: 4, 20 and 40 for 1, 10 "
        "and 50 images per class of CIFAR-10",
    )  # fmt: skip
    grow_start_from: int = field(10, "initial max_start_epoch if grow_start_over > 0")
    grow_start_over: int = field(
        1000, "distillation steps over which max_start_epoch grows; 0: constant", 0,
        shrink=Shrink(1, 0),
    )  # fmt: skip
    threshold: float = field(1.0, "loss above which a step changes nothing", *POSITIVE)
    labels_learning_rate: float = field(
        2.0, "learning rate of the labels, in place of labels.learning_rate; published: 2 to 10",
        *POSITIVE,
    )  # fmt: skip

    def labels_optimizer(self) -> optax.GradientTransformation:
        return optax.sgd(self.labels_learning_rate, momentum=0.9)
