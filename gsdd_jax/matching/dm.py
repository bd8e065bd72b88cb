"""Distribution matching, DM (Zhao and Bilen, 2023): mean features under random networks."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core.fields import Shrink, field
from gsdd_jax.data import augment
from gsdd_jax.matching.base import Draws, RealData, Synthetic, Work
from gsdd_jax.matching.by_class import CLASSES_PER_STEP, ByClass, map_classes
from gsdd_jax.networks import Network


class Carry(NamedTuple):
    """Random network of a step, and the real images' mean features under it."""

    network: Any
    means: Float[Array, "k f"]
    augmentation: Key[Array, "k"]  # one per class for real and synthetic images
    classes: Int[Array, "k"] | None  # None: all


@dataclasses.dataclass(frozen=True)
class DistributionMatching(ByClass):
    """Squared distance between mean features of real and synthetic images, per class.

    Features are the flattened output of the last block of `network`. Every step draws real images
    without replacement; classes with fewer than `batch_real` give all of them. The published code
    updates after each class in turn (`per_class_updates`). `class_by_class` recomputes activations
    in the backward pass: the memory of one class, for about a third more work.
    """

    name: ClassVar[str] = "dm"
    compares_classes: ClassVar[bool] = False
    saves_memory: ClassVar[tuple[str, ...]] = (
        "matching.options.batch_real",
        "matching.options.class_by_class=True",
    )
    network: Network
    num_classes: int
    batch_real: int = field(256, "real images per class and step", shrink=Shrink(0.5, 1))
    batch_syn: int = field(0, "synthetic images per class and step; 0: all", 0)
    per_class_updates: bool = field(False, "True: update after each class in turn")
    classes_per_step: int = field(0, CLASSES_PER_STEP, 0)
    class_by_class: bool = field(
        False, "True: one class at a time, to save memory (needed at 128 x 128)"
    )
    strategy: str = augment.DSA

    @property
    def num_updates(self) -> int:
        return super().independent if self.per_class_updates else 1

    @property
    def independent(self) -> int:
        return 1 if self.per_class_updates else super().independent

    def work(self, num_classes: int, num_images: int) -> Work:
        classes, *_ = self.compared(num_classes, num_images)
        steps = super().work(num_classes, num_images).steps
        return Work(steps, steps / (classes if self.class_by_class else 1))

    @property
    def drawn_per_class(self) -> int:
        """Real images of each class that a step draws."""
        return self.batch_real

    def draws(self, key: Key[Array, ""], loss_keys: Key[Array, "u"], host_inputs: Any) -> Draws:
        return Draws(jax.random.split(key, 3)[2:], self.drawn_per_class, host_inputs)

    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Any) -> Carry:
        keys = jax.random.split(key, 3)
        network = self.network.init(keys[0])
        augmentation = jax.random.split(keys[1], self.num_classes)
        if host_inputs is not None:
            augmentation = augmentation[host_inputs]
        real, weights = self.draw(keys[2], data, host_inputs)

        def means(total, network, augmentation, real):
            return total(self._mean_features(network, augmentation, *real, data.transformed))

        means = map_classes(means, network, augmentation, real=(real, weights))
        return Carry(network, means, augmentation, host_inputs)

    def draw(
        self, key: Key[Array, ""], data: RealData, classes: Int[Array, "k"] | None
    ) -> tuple[Array, Float[Array, "k r"]]:
        """Returns real images of each class, as stored, and their weights in its mean."""
        images, weights, _ = data.draw(key, self.drawn_per_class, classes)
        return images, weights

    def limited(self, features: Float[Array, "*n f"]) -> Float[Array, "*n f"]:
        """Returns the features of each image that are compared."""
        return features

    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        aux_params: Any,
        carry: Carry,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        augmentation, target = carry.augmentation, carry.means
        if self.per_class_updates:
            label = update if carry.classes is None else carry.classes[update]
            sample = self._of_one_class(synthetic, label, key)
            augmentation, target = augmentation[update][None], target[update][None]
        else:
            sample = synthetic.sample(key, self.batch_syn, carry.classes)

        def distances(total, network, of_classes, batch):
            augmentation, target = of_classes
            means = total(self._mean_features(network, augmentation, *batch))
            return ((means - target) ** 2).sum(1)

        of_classes = augmentation, target
        return map_classes(distances, carry.network, of_classes, synthetic=sample).sum()

    def _of_one_class(self, synthetic, label, key):
        if synthetic.counts:
            return synthetic.sample(key, self.batch_syn, label[None])
        count = synthetic.images_per_class
        places = jnp.arange(count)
        if self.batch_syn not in (0, count):
            places = jax.random.permutation(key, count)[: self.batch_syn]
        return synthetic.only((label * count + places)[None])

    def _mean_features(
        self,
        network: Any,
        augmentation: Key[Array, "k"],
        images: Array,  # [k, s, h, w, c], input of `transform`
        weights: Float[Array, "k s"] | None,  # of each image in its class; None: equal
        transform: Callable = lambda images: images,
    ) -> Float[Array, "k f"]:
        """Returns the mean features per class."""

        def prepare(pair):
            key, one_class = pair
            return augment.augment(
                key,
                transform(one_class),
                strategy=self.strategy,
                shared=True,
                frames=self.network.frames,
            )

        def mean(features, weights):
            features = self.limited(features)
            if weights is None:
                return features.mean(0)
            return jnp.matmul(weights, features, precision=jax.lax.Precision.HIGHEST)

        def mean_of_class(arguments):
            *pair, weights = arguments
            return mean(self.network.features(network, prepare(pair)), weights)

        if self.class_by_class:
            means = jax.lax.map(jax.checkpoint(mean_of_class), (augmentation, images, weights))
        else:
            images = jax.lax.map(prepare, (augmentation, images))
            features = self.network.features(network, images.reshape(-1, *images.shape[2:]))
            means = jax.vmap(mean)(features.reshape(*images.shape[:2], -1), weights)
        return means
