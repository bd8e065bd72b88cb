"""Distribution matching, DM (Zhao and Bilen, 2023): mean features under random networks."""

import dataclasses
import functools
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
        return Draws(jax.random.split(key, 3)[2:], self.drawn_per_class, self.classes(host_inputs))

    def classes(self, host_inputs: Any) -> Int[Array, "k"] | None:
        """Returns the classes of a step; None: all."""
        return host_inputs

    def networks(self, key: Key[Array, ""], host_inputs: Any) -> Any:
        """Returns what gives the features of a step."""
        return self.network.init(key)

    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Any) -> Carry:
        keys = jax.random.split(key, 3)
        network, classes = self.networks(keys[0], host_inputs), self.classes(host_inputs)
        augmentation = jax.random.split(keys[1], self.num_classes)
        if classes is not None:
            augmentation = augmentation[classes]
        real, weights = self.draw(keys[2], data, classes)

        def means(total, network, augmentation, real):
            of_image = functools.partial(self.features, network)
            return total(self.class_means(of_image, augmentation, *real, data.transformed))

        means = map_classes(means, network, augmentation, real=(real, weights))
        return Carry(network, means, augmentation, classes)

    def draw(
        self, key: Key[Array, ""], data: RealData, classes: Int[Array, "k"] | None
    ) -> tuple[Array, Float[Array, "k r"]]:
        """Returns real images of each class, as stored, and their weights in its mean."""
        images, weights, _ = data.draw(key, self.drawn_per_class, classes)
        return images, weights

    def features(self, network: Any, images: Float[Array, "n h w c"]) -> Float[Array, "n f"]:
        """Returns each image's features, whose means are compared."""
        return self.network.features(network, images)

    def distances(
        self, total: Callable, network: Any, of_classes: Any, batch: Any
    ) -> Float[Array, "k"]:
        """Returns each class's loss: a function of `map_classes`.

        `of_classes` are keys of augmentation, means of real images, and the classes.
        """
        augmentation, target, _ = of_classes
        of_image = functools.partial(self.features, network)
        means = total(self.class_means(of_image, augmentation, *batch))
        return ((means - target) ** 2).sum(1)

    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        aux_params: Any,
        carry: Carry,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        all_classes = jnp.arange(self.num_classes)
        classes = all_classes if carry.classes is None else carry.classes
        of_classes = carry.augmentation, carry.means, classes
        if self.per_class_updates:
            of_classes = jax.tree.map(lambda a: a[update][None], of_classes)
            sample = self._of_one_class(synthetic, classes[update], key)
        else:
            sample = synthetic.sample(key, self.batch_syn, carry.classes)
        return map_classes(self.distances, carry.network, of_classes, synthetic=sample).sum()

    def _of_one_class(self, synthetic, label, key):
        if synthetic.counts:
            return synthetic.sample(key, self.batch_syn, label[None])
        count = synthetic.images_per_class
        places = jnp.arange(count)
        if self.batch_syn not in (0, count):
            places = jax.random.permutation(key, count)[: self.batch_syn]
        return synthetic.only((label * count + places)[None])

    def class_means(
        self,
        features: Callable[[Float[Array, "n h w c"]], Float[Array, "n f"]],
        augmentation: Key[Array, "k"],
        images: Array,  # [k, s, h, w, c], input of `transform`
        weights: Float[Array, "k s"] | None,  # of each image in its class; None: equal
        transform: Callable = lambda images: images,
    ) -> Float[Array, "k f"]:
        """Returns the mean per class of the features of augmented images."""

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
            if weights is None:
                return features.mean(0)
            return jnp.matmul(weights, features, precision=jax.lax.Precision.HIGHEST)

        def mean_of_class(arguments):
            *pair, weights = arguments
            return mean(features(prepare(pair)), weights)

        if self.class_by_class:
            means = jax.lax.map(jax.checkpoint(mean_of_class), (augmentation, images, weights))
        else:
            images = jax.lax.map(prepare, (augmentation, images))
            found = features(images.reshape(-1, *images.shape[2:]))
            means = jax.vmap(mean)(found.reshape(*images.shape[:2], -1), weights)
        return means
