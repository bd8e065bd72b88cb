"""Interface of a distillation objective.

One step of distillation is `num_updates` updates of the synthetic set. The objective carries state
through them, such as a network that is trained between updates:

    carry = matching.begin(key, data, host_inputs)
    for u in range(num_updates):
        loss = matching.loss(synthetic, data, aux_params, carry, u, key)  # differentiated, updated
        carry = matching.after_update(synthetic, carry, u, key)

Arrays that an objective keeps across steps, such as a pool of networks, are in the run's state:

    kept = matching.first_kept(key)  # before the first step; None: nothing
    carry = matching.with_kept(carry, kept, synthetic, aux_params)  # after `begin`
    kept = matching.next_kept(kept, synthetic, aux_params, carry)  # after the last update

Objectives see synthetic images only through `Synthetic`, and real images only through `RealData`.
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
from jaxtyping import Array, Bool, Float, Float32, Int, Key, UInt8

from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import transforms

# Relative to a training step: a forward pass, and a step that is differentiated again.
FORWARD, SECOND_ORDER = 1 / 3, 3.5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RealData:
    """Training split to draw from by class, on the device or read by the host; a pytree."""

    images: transforms.RealImages  # already whitened if affordable; empty for a split that is read
    labels: Array  # Int32[n]
    by_class: Array  # Int32[k, most]: the indices of each class, then padding
    counts: Array  # Int32[k]
    # UInt8[d, k, r, h, w, c]: draws of a step; None unless the host reads the split. Draws of
    # several steps have the steps as leading axis.
    read: Array | Any = None
    # What labels views of a set that stores a labeler, for objectives with `follows_labeler`: a
    # pytree with a method `targets`, from views to class probabilities.
    labeler: Any = None

    @property
    def transform(self) -> Any:
        """Callable from images in [0, 1] to network inputs."""
        return self.images.transform

    def draw(
        self,
        key: Key[Array, ""],
        per_class: int,
        classes: Int[Array, "k"] | None = None,
        turn: int | Int[Array, ""] = 0,
    ) -> tuple[Array, Float[Array, "k r"], Int[Array, "k r"]]:
        """Draws `per_class` images of each class without replacement; smaller classes give all.

        Returns images [k, r, h, w, c] as stored, for `transformed`; weights, which sum to 1 per
        class and are 0 for padding; and indices.

        Args:
          key, per_class, classes: the values that `Matching.draws` declares; `classes` None: all.
          turn: index of this draw among those of a step.
        """
        indices = self.indices(key, per_class, classes)
        counts = (self.counts if classes is None else self.counts[classes])[:, None]
        there = jnp.arange(indices.shape[1]) < counts
        weights = there / jnp.minimum(counts, per_class)
        images = self.images.stored[indices] if self.read is None else self.read[turn]
        return images, weights, indices

    def batch(
        self, key: Key[Array, ""], per_class: int
    ) -> tuple[Float[Array, "n h w c"], Int[Array, "n"], Float[Array, "n"]]:
        """Draws of all classes as `draw`; returns network inputs, their labels, and weights, whose
        sum is 1, in the mean over classes of each class's mean."""
        drawn, weights, _ = self.draw(key, per_class)
        num_classes, size = weights.shape
        images = self.transformed(drawn.reshape(-1, *drawn.shape[2:]))
        labels = jnp.repeat(jnp.arange(num_classes), size)
        return images, labels, weights.ravel() / num_classes

    def indices(
        self, key: Key[Array, ""], per_class: int, classes: Int[Array, "k"] | None = None
    ) -> Int[Array, "k r"]:
        """Returns the indices that `draw` draws, the padding of a class last."""
        most = self.by_class.shape[1]
        by_class, counts = self.by_class, self.counts
        random = jax.random.uniform(key, by_class.shape)  # independent of the choice of classes
        if classes is not None:
            by_class, counts, random = (a[classes] for a in (by_class, counts, random))
        places = _places(random, counts, min(per_class, most))
        return jnp.take_along_axis(by_class, places, axis=1)

    def included(
        self, key: Key[Array, ""], per_class: int, least: Float[Array, "k"]
    ) -> Bool[Array, "k r"]:
        """Returns which of the images that `draw` draws, of all classes, a Poisson sample includes.

        It includes every image of class c independently, with probability 1 - least[c]. `draw`
        takes included images first.
        """
        random = jax.random.uniform(key, self.by_class.shape)
        size = min(per_class, self.by_class.shape[1])
        return jax.lax.top_k(_ranked(random, self.counts), size)[0] >= least[:, None]

    def transformed(self, drawn: Array) -> Float[Array, "*n h w c"]:
        """Returns drawn images [*n, h, w, c] as network inputs."""
        return self.images.transformed(drawn)


def _places(
    random: Float[Array, "k most"], counts: Int[Array, "k"], size: int
) -> Int[Array, "k {size}"]:
    """Returns `size` places of each class in random order, those beyond its count last."""
    return jax.lax.top_k(_ranked(random, counts), size)[1]


def _ranked(random: Float[Array, "k most"], counts: Int[Array, "k"]) -> Float[Array, "k most"]:
    """Returns random numbers in [0, 1), and -1 beyond each class's count."""
    return jnp.where(jnp.arange(random.shape[1]) < counts[:, None], random, -1.0)


def real_data(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, "n"],
    num_classes: int,
    transform: Any,
    *,
    drawn: bool = True,
) -> RealData:
    """Moves a training split to the device; raises UsageError for a class without images.

    Unless images are `drawn` from the device, they stay on the host.
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Synthetic:
    """Synthetic images inside a differentiated function; a pytree.

    Images are ordered by class. Without `counts`, image `c * images_per_class + i` is the i-th of
    the c-th class.
    """

    num_classes: int = dataclasses.field(metadata={"static": True})
    images_per_class: int = dataclasses.field(metadata={"static": True})  # on average
    kind: Any = dataclasses.field(metadata={"static": True})  # a parameterization
    params: Any
    transform: Any
    labels: Array  # Int32[m]
    # Images of each class; empty: equally many.
    counts: tuple[int, ...] = dataclasses.field(default=(), metadata={"static": True})
    # Float32[k, s], of a sample by class: each image's in its class's mean; None: equal.
    weights: Array | None = None

    def render(self, indices: Int[Array, "s"] | None = None) -> Float[Array, "s h w c"]:
        """Renders transformed images by index, or all; every device renders a part and gets all."""
        if mesh.size() == 1:
            return self._rendered(indices)
        indices = jnp.arange(len(self.labels)) if indices is None else indices
        return mesh.constrain_replicated(mesh.map_parallel(Synthetic._rendered, self, indices))

    def _rendered(self, indices):
        params = self.params if indices is None else self.kind.select(self.params, indices)
        return self.kind.to_network(params, self.transform)

    def sample(
        self, key: Key[Array, ""], per_class: int, classes: Int[Array, "k"] | None = None
    ) -> Synthetic:
        """Samples `per_class` images of each of `classes` without replacement; 0: all, in order.

        Of unequal classes, each gives as many as it has, up to `per_class`. Smaller ones repeat an
        image with weight 0. The weighted mean of a class's sample is an unbiased estimate of the
        mean of its images, as the mean of any sample without replacement.
        """
        if self.counts:
            return self._sample_unequal(key, per_class, classes)
        shape = self.num_classes, self.images_per_class
        chosen = jnp.arange(math.prod(shape)).reshape(shape)
        if per_class not in (0, self.images_per_class):
            _, places = jax.lax.top_k(jax.random.uniform(key, shape), per_class)
            chosen = chosen[:, :1] + places
        elif classes is None:
            return self
        return self.only(chosen if classes is None else chosen[classes])

    def _sample_unequal(self, key, per_class, classes):
        counts, most = jnp.array(self.counts), max(self.counts)
        size = min(per_class or most, most)
        places = jnp.arange(most)
        if size < most:
            places = _places(jax.random.uniform(key, (len(counts), most)), counts, size)
        weights = (places < counts[:, None]) / jnp.minimum(counts, size)[:, None]
        first = jnp.cumsum(counts) - counts
        chosen = first[:, None] + jnp.minimum(places, counts[:, None] - 1)
        if classes is not None:
            chosen, weights = chosen[classes], weights[classes]
        return self.only(chosen, weights)

    def only(
        self, chosen: Int[Array, "k s"], weights: Float[Array, "k s"] | None = None
    ) -> Synthetic:
        """Returns the synthetic set of the images at the indices `chosen`, by class."""
        indices = chosen.ravel()
        params = self.kind.select(self.params, indices)
        of_images = self.kind, params, self.transform, self.labels[indices]
        return Synthetic(*chosen.shape, *of_images, weights=weights)


class Draws(NamedTuple):
    """Draws of real images in a step: arguments of `RealData.draw`, one draw per key."""

    keys: Key[Array, "d"]
    per_class: int
    classes: Int[Array, "k"] | None = None


@runtime_checkable
class Trajectories(Protocol):
    """Experts as an objective reads them: flat parameters after every epoch."""

    epochs: int

    def __len__(self) -> int: ...

    def parameters(self, expert: int, epoch: int) -> Float32[np.ndarray, "p"]:
        """Returns the parameters after `epoch` epochs; 0: the initial ones."""
        ...


class Work(NamedTuple):
    """Cost of a distillation step, in training steps of the network on one image."""

    steps: float  # in time
    at_once: float  # in peak memory


class Learned(NamedTuple):
    """Learned parts of a distilled set other than the images."""

    learning_rate: float | None = None  # None: the config's
    soft_labels: Float[np.ndarray, "m k"] | None = None  # logits on their grid


class Matching(abc.ABC):
    """Frozen dataclass of static settings, with pure functions over pytrees."""

    name: ClassVar[str]
    # Fields set by the data set and the rest of the config; all others are options.
    derived: ClassVar[frozenset[str]] = frozenset({"network", "num_classes", "strategy", "labels"})
    follows_experts: ClassVar[bool] = False  # whether `host_inputs` reads trajectories
    draws_real: ClassVar[bool] = True  # whether `begin` or `loss` draws real images
    compares_classes: ClassVar[bool] = True  # False: a single class can be matched
    learns_labels: ClassVar[bool] = False  # whether `aux_params` may hold soft labels
    follows_labeler: ClassVar[bool] = False  # whether it makes use of `RealData.labeler`
    is_private: ClassVar[bool] = False  # whether a set is differentially private
    requires: ClassVar[Mapping[str, Any]] = {}  # values of the config's fields
    unequal_classes: ClassVar[bool] = False  # whether classes may have unequally many images
    saves_memory: ClassVar[tuple[str, ...]] = ()  # fields of a config that make a step smaller
    num_updates: int = 1
    pool_size: int = 0  # networks that the objective keeps across steps
    syn_steps: int = 0  # of a network whose parameters after each are kept within a step
    independent: int = 1  # independent parts of a step: classes, students
    threshold: float = math.inf  # loss above which an update changes nothing
    penalty_weight: int = 1  # times that the images' penalty counts in an update

    @classmethod
    def largest_batch(cls, num_classes: int, images_per_class: int) -> tuple[int, str]:
        """Returns the largest `batch_syn` for a synthetic set, and its unit."""
        return images_per_class, "images per class"

    def check(self, num_classes: int, images_per_class: int) -> None:
        """Raises UsageError, naming the option, if the options do not suit a synthetic set."""
        most, what = self.largest_batch(num_classes, images_per_class)
        if self.batch_syn > most:
            raise UsageError(
                f"config.matching.options.batch_syn: expected 0 (all) to {most} {what}, got "
                f"{self.batch_syn}"
            )

    @classmethod
    def shrunk(cls, options: Mapping[str, Any], expert_epochs: int) -> dict[str, Any]:
        """Returns `options` made consistent after `config.scale` has shrunk them."""
        return dict(options)

    def work(self, num_classes: int, num_images: int) -> Work:
        """Estimates the cost of a step for a synthetic set."""
        drawn = num_classes * self.batch_syn or num_images
        steps = FORWARD * num_classes * getattr(self, "batch_real", 0) + drawn
        return Work(steps, steps)

    def check_experts(self, num_epochs: int) -> None:
        """Raises UsageError if the experts have too few epochs."""
        del num_epochs

    def host_inputs(self, experts: Trajectories | None, seed: int, first: int, count: int) -> Any:
        """Returns the host's input to `count` steps from step `first` on, or None.

        Arrays have `count` as leading axis. A step's part depends only on `seed` and the step.
        """
        return None

    def draws(
        self, key: Key[Array, ""], loss_keys: Key[Array, "u"], host_inputs: Any
    ) -> Draws | None:
        """Returns the real images that a step draws, for the host to read.

        None requires all real images on the device. `key` and `host_inputs` are the arguments of
        `begin`, `loss_keys` the keys of the step's losses.
        """
        return None

    def aux_params(self, labels: Int[Array, "m"], logits: Float[Array, "m k"] | None = None) -> Any:
        """Returns initial values of learned arrays other than the images.

        Args:
          labels: class of each image.
          logits: a teacher's soft labels, on the range of their grid; None: there is no teacher.
        """
        return {}

    def learned(self, aux_params: Any) -> Learned:
        """Returns the learned parts of a distilled set from `aux_params` on the host."""
        return Learned()

    def aux_params_of(self, labels: Int[Array, "m"], learned: Learned) -> Any:
        """Returns the `aux_params` of a distilled set: the inverse of `learned`."""
        return self.aux_params(labels)

    def aux_optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer of `aux_params`."""
        return optax.identity()

    def project_aux(self, aux_params: Any) -> Any:
        """Projects `aux_params` onto its valid range after every update."""
        return aux_params

    def first_kept(self, key: Key[Array, ""]) -> Any:
        """Returns the initial arrays that the objective keeps across steps, or None."""
        return None

    def with_kept(self, carry: Any, kept: Any, synthetic: Synthetic, aux_params: Any) -> Any:
        """Returns the initial `carry` of a step with what the objective keeps across steps.

        `synthetic` are the images before the step, of which it may also make use.
        """
        return carry

    def next_kept(self, kept: Any, synthetic: Synthetic, aux_params: Any, carry: Any) -> Any:
        """Returns the arrays of the next step, given the `carry` of the last update."""
        return kept

    @abc.abstractmethod
    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Any) -> Any:
        """Returns the initial `carry` of a step."""

    @abc.abstractmethod
    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        aux_params: Any,
        carry: Any,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        """Returns the loss of one update."""

    def after_update(
        self, synthetic: Synthetic, carry: Any, update: Int[Array, ""], key: Key[Array, ""]
    ) -> Any:
        """Returns the next `carry`."""
        return carry
