"""Evaluation: new networks trained on a small set and tested on real images (section 4.1)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.core.errors import DivergedError
from gsdd_jax.data import augment, mixing, soft_labels, transforms
from gsdd_jax.networks import Network
from gsdd_jax.training.labeling import Labeling

DIVERGED = 1e6  # cross-entropy of a training that does not recover
AT_ONCE = 2**27  # pixels of a call: half a minute of a core
LARGEST_PART = 256  # images of a batch where the schedule leaves it open


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Training schedule of an evaluation network.

    Attributes:
      optimizer: "sgd" (halfway the rate is x 0.1 and momentum restarts), or with cosine decay, as
        across architectures: "adam" (the paper), "sgd_cosine", "adamw" (weight decay 0.05).
      epochs: passes over the set. "sgd" makes one more, as the published loop: of 1000, 502 at the
        full rate and 499 at a tenth.
      batch_size: batch size; the last batch of an epoch may be smaller. 0: equal parts of each
        set, at most 256 images each.
      momentum, weight_decay: of SGD.
      strategy: DSA augmentations, drawn for every image independently.
    """

    optimizer: str = "sgd"
    epochs: int = 1000
    batch_size: int = 256
    momentum: float = 0.9
    weight_decay: float = 5e-4
    strategy: str = augment.DSA

    @property
    def phases(self) -> tuple[tuple[int, float], ...]:
        """Consecutive phases (epochs, factor of the learning rate); each restarts the optimizer."""
        if self.optimizer != "sgd":
            return ((self.epochs, 1.0),)
        full = min(self.epochs // 2 + 2, self.epochs + 1)
        return ((full, 1.0), (self.epochs + 1 - full, 0.1))

    @property
    def num_epochs(self) -> int:
        return sum(epochs for epochs, _ in self.phases)

    def batch(self, num_images: int) -> int:
        """Returns the images of a batch from a set of `num_images`."""
        parts = -(-num_images // LARGEST_PART)
        return min(self.batch_size, num_images) or -(-num_images // parts)

    def num_steps(self, num_images: int) -> int:
        return self.num_epochs * -(-num_images // self.batch(num_images))

    def with_steps(self, steps: int, num_images: int) -> Schedule:
        """Returns the schedule with enough epochs for at least `steps` on `num_images`."""
        epochs = -(-steps // -(-num_images // self.batch(num_images)))
        return dataclasses.replace(self, epochs=epochs - (self.num_epochs - self.epochs))

    def transformation(
        self, learning_rate: float | Float[Array, ""], num_images: int
    ) -> optax.GradientTransformation:
        """Returns the optimizer, starting at `learning_rate`, for a set of `num_images`."""
        if self.optimizer == "sgd":
            return self._sgd(learning_rate)
        cosine = optax.cosine_decay_schedule(learning_rate, self.num_steps(num_images))
        if self.optimizer == "sgd_cosine":
            return self._sgd(cosine)
        if self.optimizer == "adamw":
            return optax.adamw(cosine, weight_decay=0.05)
        return optax.adam(cosine)

    def _sgd(self, rate):
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay),
            optax.sgd(rate, momentum=self.momentum),
        )


class Students(NamedTuple):
    """Networks in training, stacked along the leading axis of every leaf; a pytree."""

    params: Any
    optimizer: Any
    epoch: Int[Array, ""]


class Keeper:
    """Keeps states of a training, which then resumes; this one keeps none."""

    def restore(self, like: Students) -> Students:
        """Returns the last state that was kept, or `like`, with which a training begins."""
        return like

    def keep(self, state: Students) -> None:
        """Gets the state after each call; the next call donates it."""


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def train_epochs(
    network: Network,
    schedule: Schedule,
    students: Students,
    keys: Key[Array, "s"],
    images: Float[Array, "sets m h w c"],
    labels: Int[Array, "m"] | Float[Array, "m k"] | Labeling,
    learning_rate: Float[Array, ""],
    num_epochs: Int[Array, ""],
) -> tuple[Students, Float[Array, "s"]]:
    """Trains all students for some epochs; student i on set i, or on the only set.

    `Labeling` labels each view, of which most are mixtures.

    Also returns each student's largest loss of any step; NaN if it or parameters are not finite.
    """
    num_images = images.shape[1]
    batch_size = schedule.batch(num_images)
    num_full = num_images // batch_size

    def loss(params, batch, targets, key):
        logits = network.apply(params, batch, key)
        return soft_labels.cross_entropy(logits, targets).mean()

    def step(shared, own, carry, chosen, step_keys):
        students, largest = carry
        images, labels, optimizer = shared
        labels_views = isinstance(labels, Labeling)

        def view(of):
            key, set_, chosen = of
            batch = images[set_, chosen]
            if labels_views:
                batch = mixing.mixed(jax.random.fold_in(key, 1), batch)
            return augment.augment(key, batch, strategy=schedule.strategy, frames=network.frames)

        # One student after the other: vmap would compute all branches of an augmentation.
        batches = jax.lax.map(view, (step_keys, own, chosen))
        targets = jax.vmap(labels.targets)(batches) if labels_views else labels[chosen]
        losses, gradients = jax.vmap(jax.value_and_grad(loss))(
            students.params, batches, targets, step_keys
        )
        updates, optimizer_state = jax.vmap(optimizer.update)(
            gradients, students.optimizer, students.params
        )
        params = optax.apply_updates(students.params, updates)
        largest = jnp.maximum(largest, losses)
        return Students(params, optimizer_state, students.epoch), largest

    def epoch(shared, own, keys, carry):
        number = carry[0].epoch
        epoch_keys = jax.vmap(lambda k: jax.random.fold_in(k, number))(keys)
        order = jax.vmap(lambda k: jax.random.permutation(k, num_images))(epoch_keys)

        def batch(i, chosen, carry):
            step_keys = jax.vmap(lambda k: jax.random.fold_in(k, i))(epoch_keys)
            return step(shared, own, carry, chosen, step_keys)

        full = order[:, : num_full * batch_size].reshape(len(keys), num_full, batch_size)
        carry, _ = jax.lax.scan(
            lambda carry, a: (batch(a[0], a[1], carry), None),
            carry,
            (jnp.arange(num_full), full.swapaxes(0, 1)),
        )
        if num_images % batch_size:
            carry = batch(num_full, order[:, num_full * batch_size :], carry)
        students, largest = carry
        return students._replace(epoch=number + 1), largest

    def trained(shared, params, optimizer_state, keys, own):
        images, labels, learning_rate, number, num_epochs = shared
        optimizer = schedule.transformation(learning_rate, num_images)
        one = lambda _, carry: epoch((images, labels, optimizer), own, keys, carry)
        begun = Students(params, optimizer_state, number), jnp.zeros(len(keys))
        students, largest = jax.lax.fori_loop(0, num_epochs, one, begun)
        finite = jax.vmap(lambda p: jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(p)]))
        largest = jnp.where(finite(students.params).all(-1), largest, jnp.nan)
        return students.params, students.optimizer, largest

    params, optimizer_state, largest = mesh.map_parallel(
        trained,
        (images, labels, learning_rate, students.epoch, num_epochs),
        *(students.params, students.optimizer, keys, jnp.arange(len(keys)) % len(images)),
    )
    return Students(params, optimizer_state, students.epoch + num_epochs), largest


def initial(
    network: Network, key: Key[Array, ""], num_students: int
) -> tuple[Any, Key[Array, "s"]]:
    """Returns the stacked initial parameters of students, and the keys of their training."""
    init_key, train_key = jax.random.split(key)
    params = jax.vmap(network.init)(jax.random.split(init_key, num_students))
    return params, jax.random.split(train_key, num_students)


def train(
    network: Network,
    schedule: Schedule,
    key: Key[Array, ""],
    images: Float[Array, "sets m h w c"],
    labels: Int[Array, "m"] | Float[Array, "m k"] | Labeling,
    *,
    learning_rate: float,
    num_students: int,
    epochs_per_call: int | None = None,
    progress: Callable[[int], None] = lambda epochs: None,
    keeper: Keeper | None = None,
) -> Any:
    """Trains `num_students` new networks in parallel; returns their stacked parameters.

    Args:
      network, schedule, key: of all students; each has its own initialization and shuffles.
      images: transformed; one set for all students, or one for each.
      labels: classes or class probabilities, the same for every set; or what labels each view.
      learning_rate: initial learning rate.
      epochs_per_call: epochs per compiled call; None: 50, fewer of many or large images. No effect
        on the result.
      progress: called with the number of epochs just completed, first with those that a restored
        state has.
      keeper: restores a state to go on from, and gets the state after each call.

    Raises:
      DivergedError: a network diverged.
    """
    if epochs_per_call is None:
        epochs_per_call = max(1, min(50, AT_ONCE // (num_students * math.prod(images.shape[1:4]))))

    def begun(params, epoch, rate):
        optimizer = schedule.transformation(rate, images.shape[1])
        return Students(params, jax.vmap(optimizer.init)(params), epoch)

    params, keys = initial(network, key, num_students)
    keeper = keeper or Keeper()
    students = keeper.restore(begun(params, jnp.zeros((), jnp.int32), learning_rate))
    end, done = 0, int(students.epoch)
    if done:
        progress(done)
    for epochs, factor in schedule.phases:
        rate, start, end = factor * learning_rate, end, end + epochs
        if 0 < start == done:  # the next phase begins
            students = begun(students.params, students.epoch, rate)
        while done < end:
            count = min(epochs_per_call, end - done)
            given = keys, images, labels, jnp.float32(rate), jnp.int32(count)
            students, losses = train_epochs(network, schedule, students, *given)
            done += count
            check_losses(mesh.to_host(losses), done, rate)
            keeper.keep(students)
            progress(count)
    return students.params


def check_losses(losses: Float[np.ndarray, "s"], epoch: int, rate: float) -> None:
    """Raises DivergedError if the largest loss of a student shows that it diverged by `epoch`."""
    diverged = ~(losses < DIVERGED)  # NaN among them
    if diverged.any():
        worst = int(diverged.argmax())
        raise DivergedError(
            f"network {worst} diverged by epoch {epoch} (loss {losses[worst]:.3g}) at the learning "
            f"rate {rate:.3g}; lower it"
        )


@functools.partial(jax.jit, static_argnums=(0, 3))
def predictions(
    network: Network, params: Any, images: transforms.RealImages, batch_size: int = 500
) -> Int[Array, "s n"]:
    """Returns the predicted class of each image by every student in `params` (stacked)."""

    count = len(images.stored)
    batch_size = min(batch_size, count)

    def predicted(images, params):
        def of_batch(batch):
            logits = jax.vmap(lambda p: network.apply(p, images.transformed(batch)))(params)
            return logits.argmax(-1)

        found = jax.lax.map(of_batch, _batches(images.stored, batch_size))
        return found.swapaxes(0, 1).reshape(found.shape[1], -1)[:, :count]

    return mesh.map_parallel(predicted, images, params)


@functools.partial(jax.jit, static_argnums=(0, 3))
def outputs(
    network: Network, params: Any, images: Float[Array, "n h w c"], batch_size: int = 500
) -> Float[Array, "n k"]:
    """Returns the mean logits of all networks in `params` (stacked) for transformed images."""

    def of_batch(batch):
        return jax.vmap(lambda p: network.apply(p, batch))(params).mean(0)

    found = jax.lax.map(of_batch, _batches(images, min(batch_size, len(images))))
    return found.reshape(-1, found.shape[-1])[: len(images)]


@functools.partial(jax.jit, static_argnums=(0, 3))
def features(
    network: Network, params: Any, images: Float[Array, "n h w c"], batch_size: int = 500
) -> Float[Array, "n f"]:
    """Returns the features of transformed images, side by side those of all networks (stacked)."""

    def of_batch(batch):
        found = jax.vmap(lambda p: network.features(p, batch))(params)
        return found.swapaxes(0, 1).reshape(len(batch), -1)

    found = jax.lax.map(of_batch, _batches(images, min(batch_size, len(images))))
    return found.reshape(-1, found.shape[-1])[: len(images)]


def _batches(images, batch_size):
    """Returns images in batches, the last one padded with zeros."""
    padding = [(0, -len(images) % batch_size)] + [(0, 0)] * (images.ndim - 1)
    return jnp.pad(images, padding).reshape(-1, batch_size, *images.shape[1:])


def accuracy(
    network: Network,
    params: Any,
    images: transforms.RealImages,
    labels: Int[Array, "n"],
    batch_size: int = 500,
) -> Float[Array, "s"]:
    """Returns the accuracy of every student in `params` (stacked), in percent."""
    found = predictions(network, params, images, batch_size)
    return 100 * (found == labels).sum(-1) / len(labels)
