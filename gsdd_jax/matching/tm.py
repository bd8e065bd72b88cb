"""Trajectory matching, TM (Cazenavette et al., 2022): a student follows an expert's parameters."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import LEAST, Shrink, defaults, field
from gsdd_jax.data import augment, mixing, soft_labels
from gsdd_jax.matching import base
from gsdd_jax.matching.base import Learned, RealData, Synthetic, Trajectories, Work
from gsdd_jax.matching.with_labels import LABELS, WithLabels
from gsdd_jax.networks import Network

LEAST_LEARNING_RATE = 0.001
LEARNING_RATE = "learning_rate"  # key of `aux_params`


class Segments(NamedTuple):
    """Segments of the experts' trajectories: the student's start and its target."""

    start: Float[Array, "e p"]
    target: Float[Array, "e p"]


@dataclasses.dataclass(frozen=True)
class TrajectoryMatching(WithLabels):
    """Distance || student - target ||^2 / || start - target ||^2 after the student's SGD steps.

    Images are rendered and transformed once. The unroll is a scan that keeps the parameters of
    every step, but the activations only of every `keep_every`-th: the backward pass recomputes the
    others. Bits of a result may depend on `keep_every`.

    The student's learning rate is learned, and at least 0.001. Its batches of `batch_syn` images
    cut shuffles of the whole set, whose first batch may be smaller. Every student step augments
    every image independently. The student's targets are the classes, or soft labels: a teacher's,
    or learned ones (`labels`). With a set's labeler the student sees mixtures, which it labels.

    With `grow_start_over`, early epochs come first: the schedule of DATM (`datm.py`).
    """

    name: ClassVar[str] = "tm"
    follows_experts: ClassVar[bool] = True
    draws_real: ClassVar[bool] = False
    unequal_classes: ClassVar[bool] = True
    follows_labeler: ClassVar[bool] = True
    saves_memory: ClassVar[tuple[str, ...]] = (
        "matching.options.batch_syn",
        "matching.options.keep_every=0",
        "experts.at_once",
    )
    network: Network
    syn_steps: int = field(60, "SGD steps of the student", shrink=Shrink(0.5, 2))
    batch_syn: int = field(0, "synthetic images per student step; 0: all", 0)
    max_start_epoch: int = field(30, "exclusive upper bound of the student's start epoch")
    min_start_epoch: int = field(0, "lower bound of the student's start epoch", 0)
    grow_start_from: int = field(1, "initial max_start_epoch if grow_start_over > 0")
    grow_start_over: int = field(
        0, "distillation steps over which max_start_epoch grows; 0: constant", 0,
        shrink=Shrink(1, 0),
    )  # fmt: skip
    expert_epochs: int = field(2, "expert epochs between the student's start and its target")
    lr_init: float = field(0.01, "initial learning rate of the student, which is learned", LEAST)
    lr_lr: float = field(1e-5, "learning rate of the student's learning rate", LEAST)
    experts_per_step: int = field(1, "experts followed per step; their losses are averaged")
    # The other student steps recompute their activations. 0 moves the fewest bytes.
    keep_every: int = field(0, "interval of student steps that keep their activations; 0: none", 0)
    strategy: str = augment.DSA
    labels: soft_labels.Labels = soft_labels.HARD

    @classmethod
    def shrunk(cls, options: Mapping[str, Any], expert_epochs: int) -> dict[str, Any]:
        options = defaults(cls) | dict(options)
        if options["batch_syn"]:
            options["batch_syn"] = max(2, options["batch_syn"])
        last = expert_epochs - options["expert_epochs"] + 1
        most = min(options["max_start_epoch"], last)
        return options | {
            "max_start_epoch": most,
            "min_start_epoch": min(options["min_start_epoch"], most - 1),
            "grow_start_from": min(options["grow_start_from"], most),
        }

    def work(self, num_classes: int, num_images: int) -> Work:
        drawn = self.batch_syn or num_images
        student_steps = self.syn_steps * self.experts_per_step
        return Work(base.SECOND_ORDER * student_steps * drawn, base.SECOND_ORDER * drawn)

    @property
    def independent(self) -> int:
        return self.experts_per_step

    @classmethod
    def largest_batch(cls, num_classes: int, images_per_class: int) -> tuple[int, str]:
        return num_classes * images_per_class, "images"

    def check(self, num_classes: int, images_per_class: int) -> None:
        super().check(num_classes, images_per_class)
        first = self.grow_start_from if self.grow_start_over else self.max_start_epoch
        if not self.min_start_epoch < first <= self.max_start_epoch:
            raise UsageError(
                "config.matching.options: expected min_start_epoch below grow_start_from, and that "
                f"up to max_start_epoch, got {self.min_start_epoch}, {first} and "
                f"{self.max_start_epoch}"
            )

    def check_experts(self, num_epochs: int) -> None:
        last = self.max_start_epoch - 1 + self.expert_epochs
        if last > num_epochs:
            raise UsageError(
                f"config.matching.options: max_start_epoch={self.max_start_epoch} and "
                f"expert_epochs={self.expert_epochs} reach epoch {last}, but the experts end at "
                f"epoch {num_epochs}"
            )

    def host_inputs(self, experts: Trajectories, seed: int, first: int, count: int) -> Segments:
        """Returns segments of random experts' trajectories."""

        def segment(step):
            random = np.random.default_rng([seed, step])
            chosen = random.integers(len(experts), size=self.experts_per_step)
            epochs = random.integers(
                self.min_start_epoch, self.start_epochs(step), size=self.experts_per_step
            )
            pairs = list(zip(chosen.tolist(), epochs.tolist(), strict=True))
            read = lambda offset: np.stack([experts.parameters(e, t + offset) for e, t in pairs])
            return Segments(read(0), read(self.expert_epochs))

        segments = [segment(step) for step in range(first, first + count)]
        return jax.tree.map(lambda *a: np.stack(a), *segments)

    def start_epochs(self, step: int) -> int:
        """Returns the exclusive upper bound of start epochs at a step."""
        if step >= self.grow_start_over:
            return self.max_start_epoch
        grown = (self.max_start_epoch - self.grow_start_from) * step // self.grow_start_over
        return self.grow_start_from + grown

    def aux_params(
        self, labels: Int[Array, "m"], logits: Float[Array, "m k"] | None = None
    ) -> dict[str, Array]:
        return super().aux_params(labels, logits) | {LEARNING_RATE: jnp.float32(self.lr_init)}

    def learned(self, aux_params: dict[str, Any]) -> Learned:
        return super().learned(aux_params)._replace(learning_rate=float(aux_params[LEARNING_RATE]))

    def aux_params_of(self, labels: Int[Array, "m"], learned: Learned) -> dict[str, Array]:
        of_set = {LEARNING_RATE: jnp.float32(learned.learning_rate)}
        return super().aux_params_of(labels, learned) | of_set

    def aux_optimizer(self) -> optax.GradientTransformation:
        of_rate = optax.sgd(self.lr_lr, momentum=0.5)
        if not self.labels.soft:
            return of_rate
        return optax.multi_transform(
            {LEARNING_RATE: of_rate, LABELS: self.labels_optimizer()},
            {LEARNING_RATE: LEARNING_RATE, LABELS: LABELS},
        )

    def project_aux(self, aux_params: dict[str, Array]) -> dict[str, Array]:
        projected = {LEARNING_RATE: jnp.maximum(aux_params[LEARNING_RATE], LEAST_LEARNING_RATE)}
        if self.labels.soft:
            projected[LABELS] = soft_labels.clip(aux_params[LABELS])
        return projected

    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Segments) -> Segments:
        return host_inputs

    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        aux_params: dict[str, Array],
        carry: Segments,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        num_images, num_experts = len(synthetic.labels), len(carry.start)
        targets = self.targets(synthetic.labels, aux_params)
        keys = jax.random.split(key, num_experts)
        orders, present = jax.vmap(lambda k: self._draw(k, num_images))(keys)
        if orders.size <= num_images and num_experts == 1:
            # Less than one shuffle: renders only the drawn images.
            drawn = jnp.minimum(orders.ravel(), num_images - 1)  # padding: any image
            images, targets = synthetic.render(drawn), targets[drawn]
            orders = jnp.arange(len(drawn)).reshape(orders.shape)
        else:
            images = synthetic.render(None)

        def distance(share, shared, start, target, order, present, key):
            unravel = self.network.unraveling()
            step = lambda params, drawn: (self._step(share, shared, params, drawn), None)
            keys = jax.random.split(jax.random.fold_in(key, 1), self.syn_steps)
            end = _scan(step, unravel(start), (order, present, keys), self.keep_every)
            return ((ravel_pytree(end)[0] - target) ** 2).sum() / ((start - target) ** 2).sum()

        def distances(share, shared, students, _):
            if len(students[0]) == 1:  # vmap would make a drawn augmentation a select of all
                return distance(share, shared, *(a[0] for a in students))[None]
            in_axes = (None, *(0 for _ in students))
            return jax.vmap(functools.partial(distance, share), in_axes)(shared, *students)

        shared = aux_params[LEARNING_RATE], images, targets, data.labeler
        students = carry.start, carry.target, orders, present, keys
        return mesh.map_groups(distances, shared, students).mean()

    def _draw(
        self, key: Key[Array, ""], num_images: int
    ) -> tuple[Int[Array, "steps batch"], Bool[Array, "steps batch"]]:
        """Returns the indices of every step's batch, and a mask that is False for padding."""
        batch_size = self.batch_syn or num_images
        batches = -(-num_images // batch_size)
        shuffles = -(-self.syn_steps // batches)
        keys = jax.random.split(jax.random.fold_in(key, 0), shuffles)
        order = jax.vmap(lambda k: jax.random.permutation(k, num_images))(keys)
        padding = batches * batch_size - num_images
        # As the published code, which takes the batches of a shuffle from its end.
        order = jnp.pad(order, ((0, 0), (padding, 0)), constant_values=num_images)
        order = order.reshape(-1, batch_size)[: self.syn_steps]
        return order, order < num_images

    def _step(self, share, shared, params, drawn):
        """Returns the student's parameters after one step of SGD."""
        learning_rate, images, targets, labeler = shared
        indices, present, key = drawn
        # Unique indices: gradients are summed without atomics, hence deterministically.
        batch = images.at[indices].get(mode="fill", fill_value=0, unique_indices=True)
        soft = self.labels.soft
        targets = targets.at[indices].get(mode="fill", fill_value=0, unique_indices=soft)
        if labeler is not None:
            key, mix_key = jax.random.split(key)
            batch = mixing.mixed(mix_key, batch, present)
        batch = augment.augment(key, batch, strategy=self.strategy, frames=self.network.frames)

        own, own_targets, own_present = share.slice((batch, targets, present))
        if labeler is not None:
            own_targets = labeler.targets(own)

        def cross_entropy(params):
            losses = soft_labels.cross_entropy(self.network.apply(params, own), own_targets)
            return (losses * own_present).sum() / present.sum()

        gradient = share.psum(jax.grad(cross_entropy)(params))
        return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient)


def _scan(step, carry, inputs, keep_every):
    """Returns the last carry of a scan that keeps activations of every `keep_every`-th step."""
    recomputed = jax.checkpoint(step)
    if keep_every < 1:
        return jax.lax.scan(recomputed, carry, inputs)[0]
    if keep_every == 1:
        return jax.lax.scan(step, carry, inputs)[0]

    def group(carry, inputs):
        carry, _ = jax.lax.scan(recomputed, carry, jax.tree.map(lambda a: a[:-1], inputs))
        return step(carry, jax.tree.map(lambda a: a[-1], inputs))

    length = len(jax.tree.leaves(inputs)[0])
    grouped = length - length % keep_every
    groups = jax.tree.map(
        lambda a: a[:grouped].reshape(grouped // keep_every, keep_every, *a.shape[1:]), inputs
    )
    carry, _ = jax.lax.scan(group, carry, groups)
    return jax.lax.scan(recomputed, carry, jax.tree.map(lambda a: a[grouped:], inputs))[0]
