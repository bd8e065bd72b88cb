"""Trajectory matching, TM (Cazenavette et al., 2022): a student follows an expert's parameters."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from gsdd_jax.data import augment
from gsdd_jax.matching.base import Matching, RealData, Synthetic
from gsdd_jax.networks import Network

LEAST_LEARNING_RATE = 0.001
LEARNING_RATE = "learning_rate"


class Segments(NamedTuple):
    """Of the experts of one step: where the student starts, and where it should arrive."""

    start: Float[Array, "e p"]
    target: Float[Array, "e p"]


@dataclasses.dataclass(frozen=True)
class TrajectoryMatching(Matching):
    """|| student - target ||^2 / || start - target ||^2 after an unroll of the student's SGD.

    The images are rendered and transformed once; the unroll is a scan over steps that keeps the
    parameters between steps and recomputes everything else in the backward pass, so activation
    memory does not grow with its length.

    Attributes:
      network: of student and expert.
      syn_steps: SGD steps of the student.
      batch_syn: images a student step. They go through shuffles of the whole set; a shuffle's last
        batch is smaller where the set does not divide.
      lr_init, lr_lr: the student's learning rate is learned, by SGD with momentum 0.5 at `lr_lr`
        from `lr_init`, and never below 0.001.
      strategy: of the augmentation, drawn at every step, for every image independently.
      rematerialize: recompute each student step in the backward pass; off only to compare memory.
    """

    network: Network
    syn_steps: int
    batch_syn: int
    lr_init: float = 0.01
    lr_lr: float = 1e-5
    strategy: str = augment.DSA
    rematerialize: bool = True

    def extra(self) -> dict[str, Array]:
        return {LEARNING_RATE: jnp.float32(self.lr_init)}

    def extra_optimizer(self) -> optax.GradientTransformation:
        return optax.sgd(self.lr_lr, momentum=0.5)

    def project_extra(self, extra: dict[str, Array]) -> dict[str, Array]:
        return jax.tree.map(lambda rate: jnp.maximum(rate, LEAST_LEARNING_RATE), extra)

    def begin(self, key: Key[Array, ""], data: RealData, feed: Segments) -> Segments:
        del key, data
        return feed

    def loss(
        self,
        synthetic: Synthetic,
        data: RealData,
        extra: dict[str, Array],
        carry: Segments,
        update: Int[Array, ""],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        del data, update
        num_images, num_experts = len(synthetic.labels), len(carry.start)
        keys = jax.random.split(key, num_experts)
        orders, present = jax.vmap(lambda k: self._draw(k, num_images))(keys)
        if self.syn_steps * self.batch_syn <= num_images and num_experts == 1:
            # Less than one shuffle: only what is drawn is rendered.
            drawn = orders.ravel()
            images, labels = synthetic.render(drawn), synthetic.labels[drawn]
            orders = jnp.arange(len(drawn)).reshape(orders.shape)
        else:
            images, labels = synthetic.render(None), synthetic.labels

        def distance(start, target, order, present, key):
            unravel = ravel_pytree(self.network.init(jax.random.key(0)))[1]
            end = self._unroll(
                unravel(start), extra[LEARNING_RATE], images, labels, order, present, key
            )
            return ((ravel_pytree(end)[0] - target) ** 2).sum() / ((start - target) ** 2).sum()

        arguments = (carry.start, carry.target, orders, present, keys)
        if num_experts == 1:  # no vmap: a drawn augmentation stays a branch
            return distance(*(a[0] for a in arguments))
        return jax.vmap(distance)(*arguments).mean()

    def _draw(
        self, key: Key[Array, ""], num_images: int
    ) -> tuple[Int[Array, "steps batch"], Bool[Array, "steps batch"]]:
        """Indices of every step's batch; `num_images` where a shuffle's last batch is smaller."""
        batches = -(-num_images // self.batch_syn)
        shuffles = -(-self.syn_steps // batches)
        keys = jax.random.split(jax.random.fold_in(key, 0), shuffles)
        order = jax.vmap(lambda k: jax.random.permutation(k, num_images))(keys)
        padding = batches * self.batch_syn - num_images
        order = jnp.pad(order, ((0, 0), (0, padding)), constant_values=num_images)
        order = order.reshape(-1, self.batch_syn)[: self.syn_steps]
        return order, order < num_images

    def _unroll(self, params, learning_rate, images, labels, order, present, key):
        def cross_entropy(params, batch, targets, present):
            logits = self.network.apply(params, batch)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return (losses * present).sum() / present.sum()

        def step(params, drawn):
            indices, present, step_key = drawn
            # Unique, so that the sum of their gradients needs no atomics and keeps its bits.
            batch = images.at[indices].get(mode="fill", fill_value=0, unique_indices=True)
            targets = labels.at[indices].get(mode="fill", fill_value=0)
            batch = augment.augment(step_key, batch, strategy=self.strategy)
            gradient = jax.grad(cross_entropy)(params, batch, targets, present)
            return jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient), None

        step = jax.checkpoint(step) if self.rematerialize else step
        keys = jax.random.split(jax.random.fold_in(key, 1), self.syn_steps)
        return jax.lax.scan(step, params, (order, present, keys))[0]
