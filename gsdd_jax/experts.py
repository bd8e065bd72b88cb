"""Experts: networks trained on real images, whose parameters TM follows (section 3.3)."""

import functools
import pathlib
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, UInt8
from ml_collections import ConfigDict

from gsdd_jax import augment, checks, components, data, evaluate, trajectories, transforms
from gsdd_jax.errors import UsageError
from gsdd_jax.networks import Network
from gsdd_jax.report import Reporter
from gsdd_jax.trajectories import ExpertStore, Growing, Identity


def directory(config: ConfigDict) -> pathlib.Path:
    """Where a config's experts are kept: `config.experts.dir`, or a name made of data and network.

    Settings that are not part of that name are compared when the store is opened.
    """
    if config.experts.dir:
        return pathlib.Path(config.experts.dir)
    parts = [
        *(config.data.name, config.data.subset, config.data.resolution, config.data.transform),
        *(config.network.name, config.network.width, config.network.depth),
    ]
    name = "-".join(str(part) for part in parts if part)
    return pathlib.Path("runs", "experts", re.sub(r"[^\w.-]", "-", name))


def identity(config: ConfigDict, dataset: data.Dataset, network: Network) -> Identity:
    """Everything that a config's experts depend on, named as in the config."""
    fields = (
        *("data.name", "data.subset", "data.resolution", "data.transform"),
        *("network.name", "network.width", "network.depth", "network.precision"),
        *("experts.epochs", "experts.batch_size", "experts.learning_rate", "experts.seed"),
        "matching.strategy",
    )
    return {
        **{
            field: functools.reduce(lambda c, n: c[n], field.split("."), config) for field in fields
        },
        "data.fingerprint": dataset.fingerprint,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(_shapes(network))),
    }


def train_all(config: ConfigDict, reporter: Reporter) -> ExpertStore:
    """Trains the experts of `config` that `directory(config)` does not hold yet; opens them all.

    An expert's random numbers are a function of `config.experts.seed` and its index alone. On a
    GPU `config.experts.at_once` of them are trained side by side, and XLA computes groups of
    another size in another order: results then differ by rounding. On a CPU it is always one, and
    how many are asked for and which are there already changes no bit. Interrupted at any moment,
    the same call goes on after the last whole epoch, with the same result.

    Raises:
      UsageError: a setting makes no sense; the directory cannot be written, is in use, or holds
        experts made with other settings or damaged ones; a loss is not finite.
    """
    settings = config.experts
    sizes = ("num_experts", "epochs", "batch_size", "at_once")
    checks.at_least(1, config, (f"experts.{name}" for name in sizes))
    checks.seeds(config, ("experts.seed",))
    checks.positive(config, ("experts.learning_rate",))
    dataset = components.load_data(config)
    transform = components.build_transform(config.data.transform, dataset)
    network = components.build_network(config.network, dataset)
    augment.parse_strategy(config.matching.strategy)
    made_of, where = identity(config, dataset, network), directory(config)
    with trajectories.exclusive(where):
        # A CPU is no faster with several at once, and alone no bit of an expert depends on them.
        at_once = 1 if jax.default_backend() == "cpu" else settings.at_once
        groups = _unfinished(where, made_of, settings.num_experts, at_once)
        if groups:
            _train_groups(groups, config, dataset, transform, network, reporter)
    return open_store(config, dataset, network)


def open_store(config: ConfigDict, dataset: data.Dataset, network: Network) -> ExpertStore:
    """The experts of a config.

    Raises:
      UsageError: they are not all there, damaged, or were made with other settings.
    """
    made_of = identity(config, dataset, network)
    return ExpertStore.open(directory(config), made_of, config.experts.num_experts)


def expert_key(seed: int, expert: int) -> Key[Array, ""]:
    """Of everything random about one expert."""
    return jax.random.fold_in(components.stream(seed, "experts"), expert)


@functools.partial(jax.jit, static_argnums=0)
def initial(network: Network, key: Key[Array, ""]) -> Float[Array, "p"]:
    """The flat parameters that the expert of `expert_key` starts from."""
    return ravel_pytree(network.init(jax.random.fold_in(key, 0)))[0]


@functools.partial(
    jax.jit, static_argnames=("network", "batch_size", "strategy"), donate_argnames="params"
)
def train_epoch(
    network: Network,
    params: Float[Array, "e p"],
    keys: Key[Array, "e"],
    epoch: Int[Array, ""],
    images: UInt8[Array, "n h w c"],
    labels: Int[Array, "n"],
    transform: Any,
    *,
    learning_rate: Float[Array, ""],
    batch_size: int,
    strategy: str,
) -> tuple[Float[Array, "e p"], Float[Array, "e"]]:
    """One epoch of plain SGD for several experts: every image once, in random order.

    Args:
      network: of every expert.
      params: flat, one row an expert; donated.
      keys: `expert_key` of each.
      epoch: counted from 0.
      images, labels: the training set, as stored.
      transform: from [0, 1] to what the network sees; augmentation follows it.
      learning_rate: of SGD.
      batch_size: the last batch is smaller where the set does not divide.
      strategy: of the augmentation, drawn for every image independently.

    Returns:
      Parameters after the epoch, and each expert's mean loss over the images.
    """
    num_experts, num_images = len(keys), len(labels)
    batch_size = min(batch_size, num_images)
    num_full = num_images // batch_size
    unravel = _unravel(network)

    @jax.value_and_grad
    def loss(params, batch, targets):
        logits = network.apply(unravel(params), batch)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def prepare(drawn):
        key, chosen = drawn
        return augment.augment(
            key, transform(transforms.to_unit(images[chosen])), strategy=strategy
        )

    def step(params, chosen, step_keys):
        # One expert after the other: a drawn operation stays a branch, which vmap would turn into
        # computing all of them.
        batches = jax.lax.map(prepare, (step_keys, chosen))
        losses, gradients = jax.vmap(loss)(params, batches, labels[chosen])
        return params - learning_rate * gradients, losses * chosen.shape[1]

    # Key 0 is that of the initial parameters.
    epoch_keys = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, epoch + 1)))(keys)
    order = jax.vmap(lambda k: jax.random.permutation(k, num_images))(epoch_keys[:, 0])
    batch_keys = lambda i: jax.vmap(lambda k: jax.random.fold_in(k, i))(epoch_keys[:, 1])
    full = order[:, : num_full * batch_size].reshape(num_experts, num_full, batch_size)
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


def _shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0))


def _unravel(network):
    """The inverse of `ravel_pytree` on the network's parameters."""
    return ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), _shapes(network)))[1]


def _unfinished(where, made_of, num_experts, at_once) -> list[list[Growing]]:
    """Groups that are trained together. They are the same after an interruption."""
    groups = []
    for first in range(0, num_experts, at_once):
        group = []
        for expert in range(first, min(first + at_once, num_experts)):
            if trajectories.is_finished(where, made_of, expert):
                # Killed between the last two things that `finish` does, it is still there.
                trajectories.partial_of(where, expert).unlink(missing_ok=True)
            else:
                group.append(Growing(where, made_of, expert))
        if group:
            groups.append(group)
    return groups


def _epochs_done(group) -> int:
    return max(0, min(growing.rows for growing in group) - 1)


def _train_groups(groups, config, dataset, transform, network, reporter) -> None:
    settings = config.experts
    train, test = (
        (jnp.asarray(split.images), jnp.asarray(split.labels))
        for split in (dataset.train, dataset.test)
    )
    total = settings.num_experts * settings.epochs
    left = sum(len(group) * (settings.epochs - _epochs_done(group)) for group in groups)
    unravel = _unravel(network)

    def accuracy(growing, images, labels):
        # Of one alone, so that it does not depend on the group.
        one = jax.tree.map(lambda a: a[None], unravel(jnp.asarray(growing.last())))
        return float(evaluate.accuracy(network, one, images, labels, transform)[0])

    with reporter.phase("experts, epochs of all", total, total - left) as progress:
        for group in groups:
            keys = jnp.stack([expert_key(settings.seed, growing.expert) for growing in group])
            done = _epochs_done(group)
            params = jnp.asarray(_continue(group, done, network, keys))
            for epoch in range(done, settings.epochs):
                start = time.monotonic()
                params, losses = train_epoch(
                    network, params, keys, jnp.int32(epoch), *train, transform,
                    learning_rate=jnp.float32(settings.learning_rate),
                    batch_size=settings.batch_size, strategy=config.matching.strategy,
                )  # fmt: skip
                _append(group, np.asarray(params), np.asarray(losses), epoch)
                rate = len(group) * len(train[1]) / (time.monotonic() - start)
                progress.advance(len(group), loss=float(losses.mean()), **{"images/s": rate})
            for growing in group:
                growing.finish(accuracy(growing, *train), accuracy(growing, *test))


def _continue(group, epochs_done, network, keys) -> Float[np.ndarray, "e p"]:
    """The parameters after `epochs_done`, where all of the group go on; the initial ones if new."""
    for growing, key in zip(group, keys, strict=True):
        growing.truncate(epochs_done + 1)
        if not growing.rows:
            growing.append(np.asarray(initial(network, key)))
    return np.stack([growing.last() for growing in group])


def _append(group, params, losses, epoch) -> None:
    for growing, row, loss in zip(group, params, losses, strict=True):
        if not (loss < evaluate.DIVERGED and np.isfinite(row).all()):
            raise UsageError(
                f"expert {growing.expert} diverged in epoch {epoch + 1} (loss {loss:.3g}); lower "
                "config.experts.learning_rate and give another config.experts.dir"
            )
    for growing, row in zip(group, params, strict=True):
        growing.append(row)
