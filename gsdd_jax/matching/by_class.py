"""Base of the objectives that compare real and synthetic images class by class."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.matching.base import FORWARD, Matching, Synthetic, Trajectories, Work

CLASSES_PER_STEP = "classes compared per step; must divide their number; 0: all"


def map_classes(
    function: Callable[..., Float[Array, "k *shape"]],
    network: Any,
    of_classes: Any,
    *,
    real: tuple[Array, Float[Array, "k r"]] | None = None,
    synthetic: Synthetic | None = None,
) -> Float[Array, "k *shape"]:
    """Computes `function(total, network, of_classes, *batches)` of classes in parallel.

    Devices share the classes, and each class's images.

    Args:
      function: returns a value per class. `total` sums over the devices that share a class's images
        and is needed where a value depends on all of them. Each batch is images [k, s, h, w, c] by
        class, and their weights [k, s] in the class's mean; None: equal.
      network: replicated parameters.
      of_classes: pytree of arrays that lead with classes.
      real: batch of real images, as drawn.
      synthetic: images that are rendered as the second batch, a sample by class.
    """

    def share(share, shared, of_classes, images):
        network, synthetic = shared
        real, places, weights = images
        batches = [] if real is None else [real]
        if synthetic is not None:
            count = synthetic.num_classes if places is None else len(places)
            rendered = synthetic.render(None if places is None else places.ravel())
            batches.append((rendered.reshape(count, -1, *rendered.shape[1:]), weights))
        return function(share.psum, network, of_classes, *batches)

    places = None
    weights = None if synthetic is None else synthetic.weights
    if synthetic is not None and mesh.size() > 1:  # one device has nothing to share
        shape = synthetic.num_classes, synthetic.images_per_class
        places = jnp.arange(math.prod(shape)).reshape(shape)
        if weights is None:
            weights = jnp.full(shape, 1 / synthetic.images_per_class)
    images = real, places, weights
    return mesh.map_groups(share, (network, synthetic), of_classes, images)


class ByClass(Matching):
    """Objective with the field `classes_per_step`: the classes that a step compares; 0: all.

    Each pass over the classes is a new permutation, cut into groups, so that it visits each class
    once. Images of other classes are not rendered in a step. Their gradient is that of the penalty
    only.
    """

    unequal_classes: ClassVar[bool] = True
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

    def host_inputs(
        self, experts: Trajectories | None, seed: int, first: int, count: int
    ) -> Int32[np.ndarray, "count k"] | None:
        """Returns the classes of each step, or None for all."""
        if not self.classes_per_step:
            return None
        found = np.zeros((count, self.classes_per_step), np.int32)
        for i in range(count):
            done, place = divmod((first + i) * self.classes_per_step, self.num_classes)
            order = np.random.default_rng([seed, done]).permutation(self.num_classes)
            found[i] = order[place : place + self.classes_per_step]
        return found
