"""Training and testing of experts on images that are read from disk on demand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.data import Split, reading, rows, transforms
from gsdd_jax.networks import Network
from gsdd_jax.training import evaluate, experts

TESTED_AT_ONCE = 2000  # images; whole batches of `evaluate.predictions`


def train_epoch(
    network: Network,
    params: Float[Array, "e p"],
    keys: Key[Array, "e"],
    epoch: Int[Array, ""],
    split: Split,
    transform: Any,
    *,
    learning_rate: Float[Array, ""],
    batch_size: int,
    strategy: str,
) -> tuple[Float[Array, "e p"], Float[np.ndarray, "e"]]:
    """Runs `training.experts.train_epoch` on a split not held by the device: equal batches in equal
    order, several per call."""
    count = len(split.labels)
    size = min(batch_size, count)
    order = np.asarray(experts.orders(keys, epoch, count))
    of_batch = lambda place: order[:, place * size : (place + 1) * size]
    shape = len(keys), size, *split.images.shape[1:]
    (own,) = mesh.local_slices(len(keys))  # experts trained by this process
    read = reading.ahead(split.images, lambda i: of_batch(i)[own], 0, -(-count // size), shape)
    losses, waiting, first = np.zeros(len(keys), np.float32), None, 0
    for number in _calls(count, size, reading.items_at_once(shape)):
        # Read while the device computes the previous call.
        images = np.stack([next(read) for _ in range(number)], axis=1)
        chosen = np.stack([of_batch(first + i) for i in range(number)], axis=1)
        losses += 0 if waiting is None else mesh.to_host(waiting)
        params, waiting = experts.train_batches(
            network, params, keys, epoch, jnp.int32(first),
            mesh.shard_host_array(images, 0, len(keys)),
            jnp.asarray(split.labels[chosen]), transform,
            learning_rate=learning_rate, strategy=strategy,
        )  # fmt: skip
        first += number
    return params, (losses + mesh.to_host(waiting)) / np.float32(count)


def accuracy(network: Network, params: Any, split: Split, transform: Any) -> Float[Array, "s"]:
    """Runs `training.evaluate.accuracy` batch by batch on a split not held by the device."""
    right, count = 0, len(split.labels)
    for first in range(0, count, TESTED_AT_ONCE):
        labels = split.labels[first : first + TESTED_AT_ONCE]
        images = rows.take(split.images, np.arange(first, first + len(labels)))
        if count > TESTED_AT_ONCE:  # one shape, one program
            images = np.pad(images, [(0, TESTED_AT_ONCE - len(labels)), (0, 0), (0, 0), (0, 0)])
        real = transforms.RealImages(jnp.asarray(images), transform)
        found = evaluate.predictions(network, params, real)[:, : len(labels)]
        right += (found == labels).sum(-1)
    return 100 * right / count


def _calls(count, size, at_once):
    """Returns the number of batches per call; a smaller last batch has its own call."""
    full, rest = divmod(count, size)
    calls = [at_once] * (full // at_once) + [full % at_once, int(rest > 0)]
    return [number for number in calls if number]
