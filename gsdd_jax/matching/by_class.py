"""Base of the objectives that compare real and synthetic images class by class."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32

from gsdd_jax.core.errors import UsageError
from gsdd_jax.matching.base import FORWARD, Matching, Trajectories, Work


class ByClass(Matching):
    """Objective with the field `classes_per_step`: the classes that a step compares; 0: all.

    Each pass over the classes is a new permutation, cut into groups, so that it visits each class
    once. Images of other classes are not rendered in a step. Their gradient is that of the penalty
    only.
    """

    num_classes: int
    classes_per_step: int

    @property
    def independent(self) -> int:
        return self.classes_per_step or self.num_classes

    def check(self, num_classes: int, images_per_class: int) -> None:
        super().check(num_classes, images_per_class)
        count = self.classes_per_step
        if count and num_classes % count:
            raise UsageError(
                "config.matching.options.classes_per_step: expected 0 (all) or a divisor of the "
                f"{num_classes} classes, got {count}"
            )

    def compared(self, num_classes: int, num_images: int) -> tuple[int, int, int, int]:
        """Returns counts per step: classes, images, and drawn synthetic and real images."""
        classes = self.classes_per_step or num_classes
        images = num_images * classes // num_classes
        return classes, images, classes * self.batch_syn or images, classes * self.batch_real

    def work(self, num_classes: int, num_images: int) -> Work:
        _, _, drawn, real = self.compared(num_classes, num_images)
        return Work(FORWARD * real + drawn, FORWARD * real + drawn)

    def feed(
        self, experts: Trajectories | None, seed: int, first: int, count: int
    ) -> Int32[np.ndarray, "count k"] | None:
        """Returns the classes of each step, or None for all."""
        del experts
        if not self.classes_per_step:
            return None
        steps = range(first, first + count)
        return np.stack([self._classes(seed, step) for step in steps]).astype(np.int32)

    def _classes(self, seed, step):
        done, place = divmod(step * self.classes_per_step, self.num_classes)
        order = np.random.default_rng([seed, done]).permutation(self.num_classes)
        return order[place : place + self.classes_per_step]
