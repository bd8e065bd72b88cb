"""What a distillation objective is, to the loop that drives it.

One step of distillation is `num_updates` updates of the synthetic set, around which the objective
carries whatever it likes (a network that is trained meanwhile, drawn real images):

    carry = matching.begin(key, data, feed)
    for u in range(num_updates):
        loss = matching.loss(synthetic, data, extra, carry, u, key)  # differentiated, updated
        carry = matching.after_update(synthetic, carry, u, key)

An objective sees synthetic images only through `Synthetic`, never how they are stored, and real
ones only through `RealData`, never where they lie.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import transforms

# Of a training step: a forward pass, and a step that is differentiated once more.
FORWARD, SECOND_ORDER = 1 / 3, 3.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RealData:
    """A training split to draw from by class: on the device, or as the host reads it; a pytree."""

    images: transforms.RealImages  # whitened already where that is affordable; or none are stored
    labels: Array  # Int32[n]
    by_class: Array  # Int32[k, most]: the indices of each class, then padding
    counts: Array  # Int32[k]
    # Of a split that is read: what a step draws, UInt8[d, k, r, h, w, c]; of several steps, with
    # the steps as leading axis.
    read: Array | Any = None

    @property
    def transform(self) -> Any:
        """Callable: [0, 1] images -> what networks see."""
        return self.images.transform

    def draw(
        self,
        key: Key[Array, ""],
        per_class: int,
        classes: Int[Array, "k"] | None = None,
        turn: int | Int[Array, ""] = 0,
    ) -> tuple[Array, Float[Array, "k r"], Int[Array, "k r"]]:
        """`per_class` images of every class, without replacement; all of a class that has fewer.

        The images [k, r, h, w, c] are as stored: `transformed` makes of them, or of a part, what
        networks see. Also their weights, which sum to 1 in each class and are 0 where a class has
        no more, and their indices.

        Args:
          key, per_class, classes: as an objective that says what it draws says it
            (`Matching.draws`); without `classes`, of all.
          turn: which of the draws of a step this is.
        """
        indices = self.indices(key, per_class, classes)
        counts = (self.counts if classes is None else self.counts[classes])[:, None]
        there = jnp.arange(indices.shape[1]) < counts
        weights = there / jnp.minimum(counts, per_class)
        images = self.images.stored[indices] if self.read is None else self.read[turn]
        return images, weights, indices

    def indices(
        self, key: Key[Array, ""], per_class: int, classes: Int[Array, "k"] | None = None
    ) -> Int[Array, "k r"]:
        """Those that `draw` draws: what a class has comes first, then any."""
        most = self.by_class.shape[1]
        by_class, counts = self.by_class, self.counts
        random = jax.random.uniform(key, by_class.shape)  # of a class, whichever others there are
        if classes is not None:
            by_class, counts, random = (a[classes] for a in (by_class, counts, random))
        order = jnp.where(jnp.arange(most) < counts[:, None], random, -1.0)
        _, places = jax.lax.top_k(order, min(per_class, most))
        return jnp.take_along_axis(by_class, places, axis=1)

    def transformed(self, drawn: Array) -> Float[Array, "*n h w c"]:
        """Drawn images [*n, h, w, c] as networks see them."""
        return self.images.transformed(drawn)


def real_data(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, "n"],
    num_classes: int,
    transform: Any,
    *,
    drawn: bool = True,
) -> RealData:
    """Moves a training split to the device. Raises UsageError if a class has no images.

    Where nothing of it will be `drawn`, or what is drawn will be read, its images stay behind.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() == 0:
        raise UsageError(f"data: class {counts.argmin()} has no training images")
    by_class = np.zeros((num_classes, counts.max()), np.int32)
    for c in range(num_classes):
        by_class[c, : counts[c]] = np.flatnonzero(labels == c)
    return RealData(
        transforms.to_device(images, transform)
        if drawn
        else transforms.RealImages(None, transform),
        jnp.asarray(labels, jnp.int32),
        jnp.asarray(by_class),
        jnp.asarray(counts, jnp.int32),
    )


@runtime_checkable
class Images(Protocol):
    """How synthetic images are stored: a parameterization, as far as objectives need it."""

    def select(self, params: Any, indices: Int[Array, "k"]) -> Any:
        """The parameters of some images."""
        ...

    def to_network(self, params: Any, transform: Any) -> Float[Array, "m h w c"]:
        """What networks see of all images that have parameters."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Synthetic:
    """Synthetic images inside a differentiated function, as many of each class; a pytree.

    Images are ordered by class: image `c * images_per_class + i` is the i-th of the c-th class.
    """

    num_classes: int = dataclasses.field(metadata={"static": True})
    images_per_class: int = dataclasses.field(metadata={"static": True})
    kind: Images = dataclasses.field(metadata={"static": True})
    params: Any
    transform: Any
    labels: Array  # Int32[m]

    def render(self, indices: Int[Array, "s"] | None = None) -> Float[Array, "s h w c"]:
        """Transformed images, by index or all: of several devices each renders as many, and has
        them all."""
        if mesh.size() == 1:
            return self._rendered(indices)
        indices = jnp.arange(len(self.labels)) if indices is None else indices
        return mesh.constrain_replicated(mesh.map_parallel(Synthetic._rendered, self, indices))

    def _rendered(self, indices):
        params = self.params if indices is None else self.kind.select(self.params, indices)
        return self.kind.to_network(params, self.transform)

    def draw(
        self, key: Key[Array, ""], per_class: int, classes: Int[Array, "k"] | None = None
    ) -> Float[Array, "k s h w c"]:
        """Transformed images of those that `sample` takes; no others are rendered."""
        return self.sample(key, per_class, classes).at()

    def sample(
        self, key: Key[Array, ""], per_class: int, classes: Int[Array, "k"] | None = None
    ) -> Synthetic:
        """`per_class` images of every class, without replacement; 0: all, in order.

        Of `classes`, where they are given.
        """
        shape = self.num_classes, self.images_per_class
        chosen = jnp.arange(math.prod(shape)).reshape(shape)
        if per_class not in (0, self.images_per_class):
            _, places = jax.lax.top_k(jax.random.uniform(key, shape), per_class)
            chosen = chosen[:, :1] + places
        elif classes is None:
            return self
        return self.only(chosen if classes is None else chosen[classes])

    def only(self, chosen: Int[Array, "k s"]) -> Synthetic:
        """Those of as many classes and images of each."""
        indices = chosen.ravel()
        params = self.kind.select(self.params, indices)
        return Synthetic(*chosen.shape, self.kind, params, self.transform, self.labels[indices])

    def to_share(self) -> tuple[Int[Array, "k s"], Float[Array, "k s"]] | tuple[None, None]:
        """What devices divide of all images: their places, for `at`, and the weights by which they
        add up to the mean of a class. None, None where they are one device's."""
        if mesh.size() == 1:
            return None, None
        shape = self.num_classes, self.images_per_class
        weights = jnp.full(shape, 1 / self.images_per_class)
        return jnp.arange(math.prod(shape)).reshape(shape), weights

    def at(self, places: Int[Array, "k s"] | None = None) -> Float[Array, "k s h w c"]:
        """Transformed images of some classes, at some of the places; None: all."""
        count = self.num_classes if places is None else len(places)
        images = self.render(None if places is None else places.ravel())
        return images.reshape(count, -1, *images.shape[1:])


class Draws(NamedTuple):
    """What a step draws of real images, once with every key: the arguments of `RealData.draw`."""

    keys: Key[Array, "d"]
    per_class: int
    classes: Int[Array, "k"] | None = None


@runtime_checkable
class Trajectories(Protocol):
    """What an objective may read of experts: their flat parameters after every epoch."""

    epochs: int

    def __len__(self) -> int: ...

    def parameters(self, expert: int, epoch: int) -> Float32[np.ndarray, "p"]:
        """After `epoch` epochs; 0 are the initial ones."""
        ...


class Work(NamedTuple):
    """A step of distillation, in training steps of the network on one image."""

    steps: float  # that take as long
    at_once: float  # that take as much memory


class Learned(NamedTuple):
    """Parts of a distilled set that an objective learns beside the images."""

    learning_rate: float | None = None  # None: that of the config
    soft_labels: Float[np.ndarray, "m k"] | None = None  # logits
    label_bits: int = 0


class Matching(abc.ABC):
    """A frozen dataclass of static settings, with pure functions over pytrees."""

    name: ClassVar[str]
    # Fields that follow from the data set and the rest of the config; all others are options.
    derived: ClassVar[frozenset[str]] = frozenset({"network", "num_classes", "strategy"})
    follows_experts: ClassVar[bool] = False  # whether `feed` reads trajectories
    draws_real: ClassVar[bool] = True  # whether `begin` or `loss` draws real images
    label_options: ClassVar[tuple[str, ...]] = ()  # options that `label_bytes` depends on
    saves_memory: ClassVar[tuple[str, ...]] = ()  # fields of a config that make a step smaller
    num_updates: int = 1
    independent: int = 1  # parts of a step that do not depend on each other: classes, students

    @classmethod
    def largest_batch(cls, num_classes: int, images_per_class: int) -> tuple[int, str]:
        """Returns the largest `batch_syn` of a synthetic set, and what it counts."""
        del num_classes
        return images_per_class, "images a class"

    def check(self, num_classes: int, images_per_class: int) -> None:
        """Raises UsageError, naming the option, where it does not suit a synthetic set."""
        most, what = self.largest_batch(num_classes, images_per_class)
        if self.batch_syn > most:
            raise UsageError(
                f"config.matching.options.batch_syn: expected 0 (all) to {most} {what}, got "
                f"{self.batch_syn}"
            )

    @classmethod
    def label_bytes(
        cls, options: Mapping[str, Any], num_classes: int, images_per_class: int
    ) -> int:
        """The bytes of a file, per class, that labels of that objective take from the images."""
        del options, num_classes, images_per_class
        return 0

    @classmethod
    def shrunk(cls, options: Mapping[str, Any], expert_epochs: int) -> dict[str, Any]:
        """Options that suit each other again after `config.scale` has shrunk each by itself."""
        del expert_epochs
        return dict(options)

    def work(self, num_classes: int, num_images: int) -> Work:
        """Estimates a step for a synthetic set of that size."""
        drawn = num_classes * self.batch_syn or num_images
        steps = FORWARD * num_classes * getattr(self, "batch_real", 0) + drawn
        return Work(steps, steps)

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

    def draws(self, key: Key[Array, ""], loss_keys: Key[Array, "u"], feed: Any) -> Draws | None:
        """What a step draws of real images, so that the host can read them: from the arguments of
        its `begin` and the keys of its losses.

        None for an objective that does not say: it takes all real images on the device.
        """
        del key, loss_keys, feed
        return None

    def extra(self, labels: Int[Array, "m"]) -> Any:
        """Initial values of what is learned beside the images (a student's learning rate), which
        are of the classes `labels`."""
        del labels
        return {}

    def learned(self, extra: Any) -> Learned:
        """Parts of the distilled set that `extra` holds, whose arrays are the host's."""
        del extra
        return Learned()

    def extra_of(self, labels: Int[Array, "m"], learned: Learned) -> Any:
        """The `extra` that a distilled set holds: the inverse of `learned`."""
        del learned
        return self.extra(labels)

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
