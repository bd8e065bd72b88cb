"""Gradient matching, DC (Zhao et al., 2021): loss gradients of real and synthetic images."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.core.fields import Shrink, field
from gsdd_jax.data import augment
from gsdd_jax.matching.base import SECOND_ORDER, Draws, RealData, Synthetic, Work
from gsdd_jax.matching.by_class import CLASSES_PER_STEP, ByClass, map_classes
from gsdd_jax.networks import Network


class Carry(NamedTuple):
    """Network of a step, trained between updates."""

    network: Any
    classes: Int[Array, "k"] | None  # compared in this step; None: all


@dataclasses.dataclass(frozen=True)
class GradientMatching(ByClass):
    """Distance between a network's loss gradients on real and synthetic images, per class.

    A step starts with a new network. Each of its `outer_loops` updates matches gradients at the
    network's current parameters. Between updates the network is trained on the synthetic set.
    Classes with fewer than `batch_real` real images give all of them. Each class has one random
    augmentation for real and synthetic images. The images' penalty counts once per class, as
    published.
    """

    name: ClassVar[str] = "dc"
    saves_memory: ClassVar[tuple[str, ...]] = (
        "matching.options.batch_real",
        "matching.options.classes_per_step",
    )
    network: Network
    num_classes: int
    batch_real: int = field(256, "real images per class and update", shrink=Shrink(0.5, 1))
    batch_syn: int = field(0, "synthetic images per class and update; 0: all", 0)
    classes_per_step: int = field(0, CLASSES_PER_STEP, 0)
    outer_loops: int = field(
        1, "image updates per fresh network; published: 1, 10, 50 at IPC 1, 10, 50",
        shrink=Shrink(0.5, 1),
    )  # fmt: skip
    inner_loops: int = field(
        1, "epochs of network training between updates; published: 1, 50, 10 at IPC 1, 10, 50", 0,
        shrink=Shrink(0.5, 1),
    )  # fmt: skip
    inner_learning_rate: float = field(
        0.01, "SGD learning rate of the network between image updates"
    )
    inner_batch: int = field(256, "batch size of the network between image updates")
    strategy: str = augment.DSA

    @property
    def num_updates(self) -> int:
        return self.outer_loops

    @property
    def penalty_weight(self) -> int:
        return self.independent

    def work(self, num_classes: int, num_images: int) -> Work:
        classes, images, drawn, real = self.compared(num_classes, num_images)
        one = real + SECOND_ORDER * drawn
        return Work(self.outer_loops * (one + self.inner_loops * images), one / classes)

    def draws(self, key: Key[Array, ""], loss_keys: Key[Array, "u"], host_inputs: Any) -> Draws:
        keys = jax.vmap(lambda k: jax.random.split(k, 3)[1])(loss_keys)
        return Draws(keys, self.batch_real, host_inputs)

    def begin(self, key: Key[Array, ""], data: RealData, host_inputs: Any) -> Carry:
        return Carry(self.network.init(key), host_inputs)

    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        aux_params: Any,
        carry: Carry,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        network, classes = carry
        keys = jax.random.split(key, 3)
        augmentation = jax.random.split(keys[0], self.num_classes)
        real, weights, _ = data.draw(keys[1], self.batch_real, classes, update)
        sample = synthetic.sample(keys[2], self.batch_syn, classes)
        labels = jnp.arange(self.num_classes)
        if classes is not None:
            labels, augmentation = classes, augmentation[classes]

        def distances(total, network, of_classes, *batches):
            def of_class(arguments):
                label, augment_key, real, batch = arguments

                def gradient(x, weights):
                    x = augment.augment(
                        augment_key,
                        x,
                        strategy=self.strategy,
                        shared=True,
                        frames=self.network.frames,
                    )
                    return total(self._gradient(network, x, jnp.full(len(x), label), weights))

                target = gradient(data.transformed(real[0]), real[1])
                return gradient_distance(jax.lax.stop_gradient(target), gradient(*batch))

            # Classes one by one, recomputed in the backward pass, to need the memory of one.
            return jax.lax.map(jax.checkpoint(of_class), (*of_classes, *batches))

        return map_classes(
            distances, network, (labels, augmentation), real=(real, weights), synthetic=sample
        ).sum()

    def after_update(
        self, synthetic: Synthetic, carry: Carry, update: Int[Array, ""], key: Key[Array, ""]
    ) -> Carry:
        if self.outer_loops == 1:
            return carry
        # The network of the last update is not used again.
        train = lambda params: self._train(synthetic, params, carry.classes, key)
        is_used = update < self.outer_loops - 1
        network = jax.lax.cond(is_used, train, lambda params: params, carry.network)
        return carry._replace(network=network)

    def _gradient(self, params, images, labels, weights=None):
        if weights is None:
            weights = jnp.full(len(images), 1 / len(images))

        def cross_entropy(params, images, labels, weights):
            logits = self.network.apply(params, images)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return (losses * weights).sum()

        return jax.grad(lambda p: mesh.sum_parallel(cross_entropy, p, images, labels, weights))(
            params
        )

    def _train(self, synthetic, params, classes, key):
        sample = synthetic if classes is None else synthetic.sample(key, 0, classes)
        images, labels = sample.render(), sample.labels
        count = len(labels)
        size = min(self.inner_batch, count)
        present = None if sample.weights is None else sample.weights.ravel() > 0

        def step(params, indices, step_key):
            batch = augment.augment(
                step_key, images[indices], strategy=self.strategy, frames=self.network.frames
            )
            weights = None
            if present is not None:
                weights = present[indices] / jnp.maximum(present[indices].sum(), 1)
            gradient = self._gradient(params, batch, labels[indices], weights)
            return jax.tree.map(lambda p, g: p - self.inner_learning_rate * g, params, gradient)

        def epoch(params, epoch_key):
            keys = jax.random.split(epoch_key, 3)
            order = jax.random.permutation(keys[0], count)
            if present is not None:  # batches of only padding change nothing
                order = order[jnp.argsort(~present[order], stable=True)]
            full = order[: count - count % size].reshape(-1, size)
            params, _ = jax.lax.scan(
                lambda params, a: (step(params, *a), None),
                params,
                (full, jax.random.split(keys[1], len(full))),
            )
            if count % size:
                params = step(params, order[len(full) * size :], keys[2])
            return params, None

        return jax.lax.scan(epoch, params, jax.random.split(key, self.inner_loops))[0]


def gradient_distance(a: Any, b: Any) -> Float[Array, ""]:
    """Returns 1 - cosine of two gradients, summed over output neurons of all weight tensors.

    Output neurons are the last axis. Tensors of one axis (biases, norm parameters) are ignored.
    """
    total = jnp.zeros(())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if x.ndim < 2:
            continue
        x, y = (g.reshape(-1, g.shape[-1]) for g in (x, y))
        norms = _norm(x) * _norm(y)
        total += (1 - (x * y).sum(0) / (norms + 1e-6)).sum()
    return total


def _norm(x):
    squared = (x**2).sum(0)
    positive = squared > 0  # the derivative of a square root at 0 is infinite
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
