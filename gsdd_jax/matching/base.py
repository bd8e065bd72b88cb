"""What a distillation objective is, to the loop that drives it.

One step of distillation is `num_updates` updates of the synthetic set, around which the objective
carries whatever it likes (a network that is trained meanwhile, drawn real images):

    carry = matching.begin(key, data, feed)
    for u in range(num_updates):
        loss = matching.loss(synthetic, data, extra, carry, u, key)  # differentiated, updated
        carry = matching.after_update(synthetic, carry, u, key)

An objective sees synthetic images only through `Synthetic`, never how they are stored.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import Limits
from gsdd_jax.data import transforms


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RealData:
    """A training split on the device, with what drawing by class needs; a pytree."""

    images: transforms.RealImages  # whitened already where that is affordable
    labels: Array  # Int32[n]
    by_class: Array  # Int32[k, most]: the indices of each class, then padding
    counts: Array  # Int32[k]

    @property
    def transform(self) -> Any:
        """Callable: [0, 1] images -> what networks see."""
        return self.images.transform

    def draw(
        self, key: Key[Array, ""], per_class: int
    ) -> tuple[Array, Float[Array, "k r"], Int[Array, "k r"]]:
        """`per_class` images of every class, without replacement; all of a class that has fewer.

        The images [k, r, h, w, c] are as stored: `seen` makes of them, or of a part, what networks
        see. Also their weights, which sum to 1 in each class and are 0 where a class has no more,
        and their indices.
        """
        num_classes, most = self.by_class.shape
        present = jnp.arange(most) < self.counts[:, None]
        order = jnp.where(present, jax.random.uniform(key, (num_classes, most)), -1.0)
        drawn, places = jax.lax.top_k(order, min(per_class, most))
        indices = jnp.take_along_axis(self.by_class, places, axis=1)
        weights = (drawn >= 0) / jnp.minimum(self.counts, per_class)[:, None]
        return self.images.stored[indices], weights, indices

    def seen(self, drawn: Array) -> Float[Array, "*n h w c"]:
        """Drawn images [*n, h, w, c] as networks see them."""
        return self.images.seen(drawn)


def real_data(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, "n"],
    num_classes: int,
    transform: Any,
    *,
    drawn: bool = True,
) -> RealData:
    """Moves a training split to the device. Raises UsageError if a class has no images.

    Where nothing of it will be `drawn`, its images are not transformed.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() == 0:
        raise UsageError(f"data: class {counts.argmin()} has no training images")
    by_class = np.zeros((num_classes, counts.max()), np.int32)
    for c in range(num_classes):
        by_class[c, : counts[c]] = np.flatnonzero(labels == c)
    return RealData(
        transforms.to_device(images, transform, drawn=drawn),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(by_class),
        jnp.asarray(counts, jnp.int32),
    )


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """The synthetic set inside a differentiated function.

    Images are ordered by class: image `c * images_per_class + i` is the i-th of class c.
    """

    num_classes: int
    images_per_class: int
    labels: Int[Array, "m"]
    # Indices (or None for all) -> transformed images.
    render: Callable[[Int[Array, "s"] | None], Float[Array, "s h w c"]]

    def draw(self, key: Key[Array, ""], per_class: int) -> Float[Array, "k s h w c"]:
        """`per_class` transformed images of every class, without replacement; 0: all, in order."""
        if per_class in (0, self.images_per_class):
            images = self.render(None)
        else:
            order = jax.random.uniform(key, (self.num_classes, self.images_per_class))
            _, places = jax.lax.top_k(order, per_class)
            first = jnp.arange(self.num_classes)[:, None] * self.images_per_class
            images = self.render((first + places).ravel())
        return images.reshape(self.num_classes, -1, *images.shape[1:])


@runtime_checkable
class Trajectories(Protocol):
    """What an objective may read of experts: their flat parameters after every epoch."""

    epochs: int

    def __len__(self) -> int: ...

    def parameters(self, expert: int, epoch: int) -> Float32[np.ndarray, "p"]:
        """After `epoch` epochs; 0 are the initial ones."""
        ...


class Matching(abc.ABC):
    """A frozen dataclass of static settings, with pure functions over pytrees."""

    name: ClassVar[str]
    limits: ClassVar[Limits] = {"batch_syn": (0, None)}
    follows_experts: ClassVar[bool] = False  # whether `feed` reads trajectories
    draws_real: ClassVar[bool] = True  # whether `begin` or `loss` draws real images
    num_updates: int = 1

    def check(self, num_classes: int, images_per_class: int) -> None:
        """Raises UsageError, naming the option, where it does not suit a synthetic set."""
        if self.batch_syn > images_per_class:
            raise UsageError(
                f"config.matching.options.batch_syn: expected 0 (all) to {images_per_class} images "
                f"a class, got {self.batch_syn}"
            )

    def decided(
        self, num_images: int, image_shape: tuple[int, int, int], memory: int | None
    ) -> Matching:
        """With every option decided that was left to the device: how its memory is used.

        Args:
          num_images, image_shape: of the synthetic set.
          memory: bytes of the device; None where it is the host's, which others use too.
        """
        del num_images, image_shape, memory
        return self

    def check_experts(self, num_epochs: int) -> None:
        """Raises UsageError where the experts' epochs do not suffice."""
        del num_epochs

    def feed(self, experts: Trajectories | None, seed: int, first: int, count: int) -> Any:
        """What `count` steps from step `first` on get from the host: a pytree of arrays with
        `count` as leading axis, or None. A step's share depends on `seed` and the step alone."""
        del experts, seed, first, count
        return None

    def extra(self, labels: Int[Array, "m"]) -> Any:
        """Initial values of what is learned beside the images (a student's learning rate), which
        are of the classes `labels`."""
        del labels
        return {}

    def extra_optimizer(self) -> optax.GradientTransformation:
        """Of `extra`."""
        return optax.identity()

    def project_extra(self, extra: Any) -> Any:
        """Applied to `extra` after every update."""
        return extra

    @abc.abstractmethod
    def begin(self, key: Key[Array, ""], data: RealData, feed: Any) -> Any:
        """What the updates of one step share."""

    @abc.abstractmethod
    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        extra: Any,
        carry: Any,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        """The objective of one update."""

    def after_update(
        self, synthetic: Synthetic, carry: Any, update: Int[Array, ""], key: Key[Array, ""]
    ) -> Any:
        """What is done after an update; returns the next `carry`."""
        del synthetic, update, key
        return carry
