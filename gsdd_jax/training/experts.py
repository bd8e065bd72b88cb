"""The epochs of experts: plain SGD on real images, several networks at once (section 3.3)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.data import augment, transforms
from gsdd_jax.networks import Network


@functools.partial(jax.jit, static_argnums=0)
def initial(network: Network, key: Key[Array, ""]) -> Float[Array, "p"]:
    """The flat parameters that an expert with this key starts from."""
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
    """One epoch of plain SGD for several experts: every image once, in random order.

    Args:
      network: of every expert.
      params: flat, one row an expert; donated.
      keys: of everything random about each.
      epoch: counted from 0.
      images, labels: the training set.
      learning_rate: of SGD.
      batch_size: the last batch is smaller where the set does not divide.
      strategy: of the augmentation, drawn for every image independently.

    Returns:
      Parameters after the epoch, and each expert's mean loss over the images.
    """
    num_images = len(labels)
    batch_size = min(batch_size, num_images)
    num_full = num_images // batch_size
    unravel = unraveling(network)

    @jax.value_and_grad
    def loss(params, batch, targets):
        logits = network.apply(unravel(params), batch)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def train(shared, params, keys):
        images, labels, learning_rate, epoch = shared

        def prepare(drawn):
            key, chosen = drawn
            return augment.augment(key, images[chosen], strategy=strategy)

        def step(params, chosen, step_keys):
            # One expert after the other: a drawn operation stays a branch, which vmap would turn
            # into computing all of them.
            batches = jax.lax.map(prepare, (step_keys, chosen))
            losses, gradients = jax.vmap(loss)(params, batches, labels[chosen])
            return params - learning_rate * gradients, losses * chosen.shape[1]

        # Key 0 is that of the initial parameters.
        epoch_keys = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, epoch + 1)))(keys)
        order = jax.vmap(lambda k: jax.random.permutation(k, num_images))(epoch_keys[:, 0])
        batch_keys = lambda i: jax.vmap(lambda k: jax.random.fold_in(k, i))(epoch_keys[:, 1])
        full = order[:, : num_full * batch_size].reshape(len(keys), num_full, batch_size)
        params, losses = jax.lax.scan(
            lambda params, a: step(params, a[1], batch_keys(a[0])),
            params,
            (jnp.arange(num_full), full.swapaxes(0, 1)),
        )
        total = losses.sum(0)
        if num_images % batch_size:
            params, rest = step(params, order[:, num_full * batch_size :], batch_keys(num_full))
            total += rest
        return params, total / num_images

    return mesh.each(train, (images, labels, learning_rate, epoch), params, keys)


def num_parameters(network: Network) -> int:
    """Of one network: the length of a flat row."""
    return sum(leaf.size for leaf in jax.tree.leaves(_shapes(network)))


def unraveling(network: Network) -> Callable[[Float[Array, "p"]], Any]:
    """The inverse of `ravel_pytree` on the network's parameters."""
    return ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), _shapes(network)))[1]


def _shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0))
