"""Characteristic function matching, NCFM (Wang et al., 2025): distributions of features."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import devices, memory
from gsdd_jax.core.fields import Shrink, field
from gsdd_jax.matching.base import Trajectories, Work
from gsdd_jax.matching.dm import DistributionMatching

SCALE = 300  # of the distance, as published
TINY = 1e-12  # under roots, whose derivative is infinite at 0


class Chosen(NamedTuple):
    """Classes of a step, and the parameters of its expert before and after training."""

    classes: Int[Array, "*steps k"] | None  # None: all
    first: Float[Array, "*steps p"]
    last: Float[Array, "*steps p"]


class Networks(NamedTuple):
    """Networks of a step, and the frequencies at which it compares distributions."""

    between: Any  # gives the features
    trained: Any
    frequencies: Float[Array, "t f"]


@dataclasses.dataclass(frozen=True)
class CharacteristicFunctionMatching(DistributionMatching):
    """Distance of the characteristic functions of real and synthetic features, per class.

    The characteristic function at a frequency t is the mean over images of exp(i t·f), where f are
    the features of an image, scaled to norm 1. Frequencies are standard normal, and drawn in every
    step. A difference has two parts: that of amplitudes and, with the rest of the weight, that of
    phases. The distance is the mean over frequencies of its root.

    Features are those of a network between an expert's start and its end, a random point on the
    line. With `calibration` the cross-entropy of synthetic images under the trained expert, which
    sees the same views, is added.

    The published code has a network that learns frequencies, too. Its main configs do not use it,
    and it is not here.
    """

    name: ClassVar[str] = "ncfm"
    follows_experts: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True
    saves_memory: ClassVar[tuple[str, ...]] = (
        "matching.options.num_frequencies",
        *DistributionMatching.saves_memory,
    )
    num_frequencies: int = field(
        1024, "frequencies of a step; published: 4096", shrink=Shrink(0.5, 16)
    )
    amplitude: float = field(0.5, "weight of amplitudes; the rest is that of phases", 0.0, 1.0)
    calibration: float = field(
        1.0, "weight of the cross-entropy under the trained expert; 0: none", 0.0
    )

    def check(self, num_classes: int, images_per_class: int) -> None:
        super().check(num_classes, images_per_class)
        classes = 1 if self.class_by_class else self.classes_per_step or num_classes
        images = classes * max(self.batch_real, self.batch_syn or images_per_class)
        what = f"config.matching.options.num_frequencies: {self.num_frequencies:,} for {images:,}"
        there = devices.accelerator_memory()
        memory.check(
            f"{what} images at once, of batch_real or the set",
            2 * 4 * images * self.num_frequencies,
            3,
            there,
        )

    def work(self, num_classes: int, num_images: int) -> Work:
        _, _, drawn, _ = self.compared(num_classes, num_images)
        steps, at_once = super().work(num_classes, num_images)
        return Work(steps + (drawn if self.calibration else 0), at_once)

    def host_inputs(self, experts: Trajectories, seed: int, first: int, count: int) -> Chosen:
        """Returns the classes of each step, and a random expert's parameters."""
        steps = range(first, first + count)
        chosen = [int(np.random.default_rng([seed, s, 1]).integers(len(experts))) for s in steps]
        read = lambda epoch: np.stack([experts.parameters(e, epoch) for e in chosen])
        classes = super().host_inputs(None, seed, first, count)
        return Chosen(classes, read(0), read(experts.epochs))

    def classes(self, host_inputs: Chosen) -> Int[Array, "k"] | None:
        return host_inputs.classes

    def networks(self, key: Key[Array, ""], host_inputs: Chosen) -> Networks:
        share_key, key = jax.random.split(key)
        unravel = self.network.unraveling()
        share = jax.random.uniform(share_key)
        between = share * host_inputs.first + (1 - share) * host_inputs.last
        one = jax.ShapeDtypeStruct((1, *self.network.image_shape), jnp.float32)
        size = jax.eval_shape(self.network.features, self.network.shapes(), one).shape[1]
        frequencies = jax.random.normal(key, (self.num_frequencies, size))
        return Networks(unravel(between), unravel(host_inputs.last), frequencies)

    def features(self, network: Networks, images: Float[Array, "n h w c"]) -> Float[Array, "n f"]:
        """Returns cosines, then sines, of each image's features times the frequencies."""
        found = super().features(network.between, images).astype(jnp.float32)
        found = found * jax.lax.rsqrt(jnp.maximum((found**2).sum(1, keepdims=True), TINY**2))
        angles = jnp.matmul(found, network.frequencies.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], 1)

    def distances(
        self, total: Callable, network: Networks, of_classes: Any, batch: Any
    ) -> Float[Array, "k"]:
        augmentation, target, classes = of_classes
        of_image = functools.partial(self.features, network)
        means = total(self.class_means(of_image, augmentation, *batch))
        found = SCALE * self._discrepancies(means, target)
        if not self.calibration:
            return found

        def log_probabilities(images):
            return jax.nn.log_softmax(self.network.apply(network.trained, images))

        means = total(self.class_means(log_probabilities, augmentation, *batch))
        return found - self.calibration * means[jnp.arange(len(classes)), classes]

    def _discrepancies(
        self, synthetic: Float[Array, "k f"], real: Float[Array, "k f"]
    ) -> Float[Array, "k"]:
        """Returns the distance of characteristic functions: real parts, then imaginary ones.

        The squared distance in the complex plane is the sum of both parts.
        """
        one, other = (jnp.split(a, 2, axis=1) for a in (synthetic, real))
        size, size_of_real = (jnp.sqrt(jnp.maximum(a**2 + b**2, TINY)) for a, b in (one, other))
        amplitudes = (size - size_of_real) ** 2
        both = (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2
        rest = 1 - self.amplitude  # of phases: both - amplitudes
        squares = (self.amplitude - rest) * amplitudes + rest * both
        return jnp.sqrt(jnp.maximum(squares, TINY)).mean(1)
