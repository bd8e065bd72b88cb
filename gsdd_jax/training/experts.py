"""Epochs of experts: plain SGD on real images, several networks at once (section 3.3)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, UInt8

from gsdd_jax.core import mesh
from gsdd_jax.data import augment, transforms
from gsdd_jax.networks import Network


@functools.partial(jax.jit, static_argnums=0)
def initial(network: Network, key: Key[Array, ""]) -> Float[Array, "p"]:
    """Returns an expert's flat initial parameters."""
    return ravel_pytree(network.init(jax.random.fold_in(key, 0)))[0]


@functools.partial(
    jax.jit, static_argnames=("network", "batch_size", "strategy"), donate_argnames="params"
)
def train_epoch(
    network: Network,
    params: Float[Array, "e p"],
    keys: Key[Array, "e"],
    epoch: Int[Array, ""],
    images: transforms.RealImages,
    labels: Int[Array, "n"],
    *,
    learning_rate: Float[Array, ""],
    batch_size: int,
    strategy: str,
) -> tuple[Float[Array, "e p"], Float[Array, "e"]]:
    """Trains several experts for one epoch of plain SGD: every image once, in random order.

    Args:
      params: flat, one row per expert; donated.
      epoch: from 0.
      batch_size: batch size; the last batch may be smaller.
      strategy: DSA augmentations, drawn for every image independently.

    Returns:
      Parameters after the epoch, and each expert's mean loss over the images.
    """
    num_images = len(labels)
    batch_size = min(batch_size, num_images)
    num_full = num_images // batch_size

    def train(shared, params, keys):
        images, labels, learning_rate, epoch = shared
        step = _sgd(network, learning_rate, strategy, images.__getitem__)
        epoch_keys = _epoch_keys(keys, epoch)
        order = _orders(epoch_keys, num_images)
        full = order[:, : num_full * batch_size].reshape(len(keys), num_full, batch_size)
        params, losses = jax.lax.scan(
            lambda params, a: step(params, a[1], labels[a[1]], _batch_keys(epoch_keys, a[0])),
            params,
            (jnp.arange(num_full), full.swapaxes(0, 1)),
        )
        total = losses.sum(0)
        if num_images % batch_size:
            chosen = order[:, num_full * batch_size :]
            params, rest = step(params, chosen, labels[chosen], _batch_keys(epoch_keys, num_full))
            total += rest
        return params, total / num_images

    return mesh.map_parallel(train, (images, labels, learning_rate, epoch), params, keys)


@functools.partial(jax.jit, static_argnames="num_images")
def orders(keys: Key[Array, "e"], epoch: Int[Array, ""], num_images: int) -> Int[Array, "e n"]:
    """Returns the order of an epoch's images for each expert, batch after batch."""
    return _orders(_epoch_keys(keys, epoch), num_images)


@functools.partial(jax.jit, static_argnames=("network", "strategy"), donate_argnames="params")
def train_batches(
    network: Network,
    params: Float[Array, "e p"],
    keys: Key[Array, "e"],
    epoch: Int[Array, ""],
    first: Int[Array, ""],
    images: UInt8[Array, "e b s h w c"],
    labels: Int[Array, "e b s"],
    transform: Any,
    *,
    learning_rate: Float[Array, ""],
    strategy: str,
) -> tuple[Float[Array, "e p"], Float[Array, "e"]]:
    """Trains on some batches of `train_epoch`, which the host read in the order of `orders`.

    `first` is the first batch's index in the epoch. Images and labels are by expert, batch and
    position in the batch. Returns parameters after the batches, and each expert's loss summed over
    the images.
    """
    transformed = transforms.RealImages(None, transform).transformed

    def train(shared, params, keys, images, labels):
        learning_rate, epoch, first = shared
        step = _sgd(network, learning_rate, strategy, transformed)
        epoch_keys = _epoch_keys(keys, epoch)
        params, losses = jax.lax.scan(
            lambda params, a: step(params, a[1], a[2], _batch_keys(epoch_keys, a[0])),
            params,
            (first + jnp.arange(images.shape[1]), images.swapaxes(0, 1), labels.swapaxes(0, 1)),
        )
        return params, losses.sum(0)

    return mesh.map_parallel(train, (learning_rate, epoch, first), params, keys, images, labels)


def _sgd(network, learning_rate, strategy, transformed):
    """Returns a step of all experts: (params, images, targets, keys) -> (params, summed losses)."""
    unravel = network.unraveling()

    @jax.value_and_grad
    def loss(params, batch, targets, key):
        logits = network.apply(unravel(params), batch, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def prepare(drawn):
        key, chosen = drawn
        return augment.augment(key, transformed(chosen), strategy=strategy, frames=network.frames)

    def step(params, chosen, targets, step_keys):
        # One expert after the other: vmap would compute all branches of an augmentation.
        batches = jax.lax.map(prepare, (step_keys, chosen))
        losses, gradients = jax.vmap(loss)(params, batches, targets, step_keys)
        return params - learning_rate * gradients, losses * targets.shape[1]

    return step


def _epoch_keys(keys, epoch):
    """Returns the keys of each expert's order and batches."""
    # Key 0 is for the initial parameters.
    return jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, epoch + 1)))(keys)


def _orders(epoch_keys, num_images):
    return jax.vmap(lambda k: jax.random.permutation(k, num_images))(epoch_keys[:, 0])


def _batch_keys(epoch_keys, place):
    return jax.vmap(lambda k: jax.random.fold_in(k, place))(epoch_keys[:, 1])


def num_parameters(network: Network) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(network.shapes()))
