"""From a config to the things it names: data, transform, parameterization, network, objective."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from gsdd_jax import data, matching, networks, parameterizations, transforms
from gsdd_jax.distill import Problem
from gsdd_jax.errors import UsageError
from gsdd_jax.evaluate import Schedule
from gsdd_jax.networks import Network


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All parts of one experiment; each goes with any of the others."""

    dataset: data.Dataset
    transform: Any
    network: Network
    problem: Problem
    schedule: Schedule


def stream(seed: int, name: str) -> Key[Array, ""]:
    """An independent key for each named use of a run's seed."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def build(config: ConfigDict) -> Experiment:
    """Raises UsageError for a setting that makes no sense, naming its field."""
    _check(config)
    dataset = data.load(
        config.data.name,
        subset=config.data.subset or None,
        resolution=config.data.resolution or None,
        data_dir=config.data.dir or None,
    )
    transform = build_transform(config.data.transform, dataset)
    image_shape = dataset.train.images.shape[1:]
    network = build_network(config.network, dataset)
    parameterization = parameterizations.build(
        config.parameterization.name,
        image_shape,
        ipc=config.budget.ipc,
        gpc=config.budget.gpc,
        **config.parameterization.options,
    )
    problem = Problem(
        parameterization,
        _build_matching(config.matching, network, dataset, parameterization.images_per_class),
        dataset.num_classes,
        config.distill.learning_rate,
    )
    counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    if config.init.real and parameterization.images_per_class > counts.min():
        raise UsageError(
            f"config.budget.gpc: {parameterization.images_per_class} images a class to start from, "
            f"but {dataset.name} has a class of only {counts.min()}; lower it, or set "
            "config.init.real=False"
        )
    return Experiment(dataset, transform, network, problem, build_schedule(config))


def build_transform(name: str, dataset: data.Dataset) -> transforms.Normalize | transforms.ZCA:
    """The data set's transform, applied after rendering."""
    if name == "normalize":
        return transforms.Normalize(jnp.asarray(dataset.mean), jnp.asarray(dataset.std))
    if name == "zca":
        return transforms.cached_zca(dataset.train.images, dataset.fingerprint)
    raise UsageError(f"config.data.transform: expected normalize or zca, got {name!r}")


def build_network(config: ConfigDict, dataset: data.Dataset) -> Network:
    """The network that the config names, for this data set's images and classes."""
    return networks.build(
        config.name,
        image_shape=tuple(dataset.train.images.shape[1:]),
        num_classes=dataset.num_classes,
        width=config.width,
        depth=config.depth or None,
        precision=config.precision,
    )


def build_schedule(config: ConfigDict) -> Schedule:
    """How evaluation networks are trained."""
    return Schedule(
        optimizer=config.evaluate.optimizer,
        epochs=config.evaluate.epochs,
        batch_size=config.evaluate.batch_size,
        strategy=config.matching.strategy,
    )


def initial_images(
    experiment: Experiment, key: Key[Array, ""], per_class: int
) -> Float[np.ndarray, "m h w c"]:
    """`per_class` random real images of each class, ordered by class, in [0, 1]."""
    train = experiment.dataset.train
    chosen = choose_by_class(key, train.labels, experiment.dataset.num_classes, per_class)
    return train.images[chosen].astype(np.float32) / 255


def choose_by_class(
    key: Key[Array, ""], labels: Int[np.ndarray, n], num_classes: int, per_class: int
) -> Int[np.ndarray, m]:
    """Indices of `per_class` random images of each class, without replacement, by class."""
    chosen = []
    for c in range(num_classes):
        of_class = np.flatnonzero(labels == c)
        order = jax.random.permutation(jax.random.fold_in(key, c), len(of_class))
        chosen.append(of_class[np.asarray(order)[:per_class]])
    return np.concatenate(chosen)


def _build_matching(config, network, dataset, images_per_class):
    if config.name != "dm":
        raise UsageError(f"config.matching.name: expected dm, got {config.name!r}")
    counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    if not 1 <= config.batch_real <= counts.min():
        raise UsageError(
            f"config.matching.batch_real: expected 1 to {counts.min()}, the size of the smallest "
            f"class of {dataset.name}, got {config.batch_real}"
        )
    if not 0 <= config.batch_syn <= images_per_class:
        raise UsageError(
            f"config.matching.batch_syn: expected 0 (all) to {images_per_class} images a class, "
            f"got {config.batch_syn}"
        )
    return matching.DistributionMatching(
        network=network,
        num_classes=dataset.num_classes,
        batch_real=config.batch_real,
        batch_syn=config.batch_syn,
        per_class_updates=config.per_class_updates,
        class_by_class=config.class_by_class,
        strategy=config.strategy,
    )


AT_LEAST_ONE = (
    "distill.steps_per_call",
    "distill.checkpoint_every",
    "evaluate.num_networks",
    "evaluate.epochs",
    "evaluate.batch_size",
    "network.width",
)
AT_LEAST_ZERO = ("init.num_steps", "distill.num_steps", "distill.eval_every", "seed")
POSITIVE = ("init.learning_rate", "distill.learning_rate", "evaluate.learning_rate")


def _check(config: ConfigDict) -> None:
    for fields, good, expected in (
        (AT_LEAST_ONE, lambda v: v >= 1, "at least 1"),
        (AT_LEAST_ZERO, lambda v: v >= 0, "at least 0"),
        (POSITIVE, lambda v: v > 0, "a positive number"),
    ):
        for field in fields:
            value = config
            for part in field.split("."):
                value = value[part]
            if not good(value):
                raise UsageError(f"config.{field}: expected {expected}, got {value}")
    if config.evaluate.optimizer not in ("sgd", "adam"):
        raise UsageError(
            f"config.evaluate.optimizer: expected sgd or adam, got {config.evaluate.optimizer!r}"
        )
