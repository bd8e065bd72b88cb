"""Differentially private distribution matching: sums of clipped features, with Gaussian noise."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from gsdd_jax import privacy
from gsdd_jax.core.fields import POSITIVE, field
from gsdd_jax.matching.base import Draws, RealData
from gsdd_jax.matching.dm import Carry, DistributionMatching

SHARE = 1 / 100  # of delta, at most, for images beyond the places of a step
LONGEST = 10**6  # steps for which that holds
GRID = 2**23  # a random float32 is a multiple of its inverse


@dataclasses.dataclass(frozen=True)
class PrivateDistributionMatching(DistributionMatching):
    """Distribution matching whose real means are differentially private.

    Every step includes each real image independently, with probability `batch_real` divided by the
    images of its class (Poisson sampling). Features of each image are clipped to the norm `clip`,
    also those of synthetic images. A class's sum gets Gaussian noise of the standard deviation
    `noise * clip`, and is divided by the expected number of images. Augmentations treat every image
    separately, by random numbers that all images of a class share.

    An image changes the sums of one class only, by at most `clip`. Numbers of images per class are
    public. An array has `capacity` places per class, and images beyond them are left out.
    """

    name: ClassVar[str] = "dp_dm"
    derived: ClassVar[frozenset[str]] = DistributionMatching.derived | {
        "train_counts",
        "classes_per_step",
    }
    is_private: ClassVar[bool] = True
    # Else real images get into a set without noise.
    requires: ClassVar[Mapping[str, Any]] = {
        "init.images": "none",
        "init.set": "",
        "data.transform": "normalize",
        "labels.source": "class",
        "evaluate.rates": "",
        "distill.eval_every": 0,
    }
    noise: float = field(1.0, "standard deviation of the noise, relative to clip", *privacy.NOISE)
    clip: float = field(8.0, "largest norm of an image's features; larger ones shrink", *POSITIVE)
    delta: float = field(1e-5, "probability beyond epsilon", *privacy.DELTA)
    train_counts: tuple[int, ...] = ()  # real images of each class

    @functools.cached_property
    def rates(self) -> Float[np.ndarray, "k"]:
        """Probability to include an image of each class."""
        return np.minimum(1, self.batch_real / np.array(self.train_counts, np.float64))

    @functools.cached_property
    def capacity(self) -> int:
        """Places per class: more images come with at most the probability `SHARE * delta`."""
        places, most = self.batch_real, max(self.train_counts)
        while self._overflow(places, LONGEST) > SHARE * self.delta:
            places += 1 + places // 64
        return min(places, most)

    def _overflow(self, places: int, steps: int) -> float:
        """Returns a bound on the probability that an image and others of its class, in any class
        and step, are more than there are places."""
        from scipy import special

        sizes = np.array(self.train_counts)
        beyond = special.bdtrc(places - 1, np.maximum(sizes, places), self.rates)
        return min(1.0, float(steps * np.where(sizes <= places, 0, beyond).sum()))

    def privacy(self, steps: int) -> dict[str, Any]:
        """Returns what so many steps cost, as plain values for the provenance."""
        rate = float(self.rates.max())
        spent = {"noise": self.noise, "steps": steps, "delta": self.delta}
        return {
            "epsilon": privacy.epsilon(rate=rate, **spent),
            "delta": self.delta + self._overflow(self.capacity, steps),
            "noise": self.noise,
            "clip": self.clip,
            "sampling_rate": rate,
            "steps": steps,
            "adjacency": "one image is added or removed; the images per class are public",
            "mechanism": "Gaussian noise on sums of clipped features, Poisson sampling",
        }

    def compared(self, num_classes: int, num_images: int) -> tuple[int, int, int, int]:
        classes, images, drawn, _ = super().compared(num_classes, num_images)
        return classes, images, drawn, classes * self.drawn_per_class

    @property
    def drawn_per_class(self) -> int:
        return self.capacity

    def draws(self, key: Key[Array, ""], loss_keys: Key[Array, "u"], host_inputs: Any) -> Draws:
        return super().draws(jax.random.split(key)[0], loss_keys, host_inputs)

    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Any) -> Carry:
        key, noise_key = jax.random.split(key)
        carry = super().begin(key, data, host_inputs)
        noise = jax.random.normal(noise_key, carry.means.shape)
        deviations = jnp.asarray(self.noise * self.clip / self._expected, jnp.float32)
        return carry._replace(means=carry.means + deviations[:, None] * noise)

    @property
    def _expected(self) -> Float[np.ndarray, "k"]:
        """Expected number of included images of each class."""
        return self.rates * np.array(self.train_counts)

    def draw(
        self, key: Key[Array, ""], data: RealData, classes: Int[Array, "k"] | None
    ) -> tuple[Array, Float[Array, "k r"]]:
        images, _, _ = data.draw(key, self.capacity)
        # Rounded up: no image is included more often than its rate says.
        least = np.ceil((1 - self.rates) * GRID) / GRID
        included = data.included(key, self.capacity, jnp.asarray(least, jnp.float32))
        return images, included / jnp.asarray(self._expected, jnp.float32)[:, None]

    def features(self, network: Any, images: Float[Array, "n h w c"]) -> Float[Array, "n f"]:
        return self.limited(super().features(network, images))

    def limited(self, features: Float[Array, "*n f"]) -> Float[Array, "*n f"]:
        """Returns features of norms up to `clip`."""
        square = (features.astype(jnp.float32) ** 2).sum(-1, keepdims=True)
        return features * jnp.minimum(1, self.clip * jax.lax.rsqrt(jnp.maximum(square, 1e-12)))
