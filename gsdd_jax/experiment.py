"""From a config to the things it names: data, transform, parameterization, network, objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from gsdd_jax import checks, data, experts, matching, parameterizations
from gsdd_jax.components import build_network, build_transform, load_data
from gsdd_jax.distill import Problem
from gsdd_jax.errors import UsageError
from gsdd_jax.evaluate import Schedule
from gsdd_jax.networks import Network


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All parts of one experiment; each goes with any of the others."""

    dataset: data.Dataset
    transform: Any
    network: Network  # of the evaluation and the experts; the problem has the matching's
    problem: Problem
    schedule: Schedule
    feed: Callable[[int, int], Any]  # (first step, number of steps) -> what they get from the host


def build(config: ConfigDict) -> Experiment:
    """Raises UsageError for a setting that makes no sense, naming its field."""
    _check(config)
    dataset = load_data(config)
    transform = build_transform(config.data.transform, dataset)
    image_shape = dataset.train.images.shape[1:]
    network = build_network(config.network, dataset)
    student = build_network(config.network, dataset, config.matching.precision)
    parameterization = parameterizations.build(
        config.parameterization.name,
        image_shape,
        ipc=config.budget.ipc,
        gpc=config.budget.gpc,
        **config.parameterization.options,
    )
    problem = Problem(
        parameterization,
        _build_matching(config, student, dataset, parameterization.images_per_class),
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
    return Experiment(
        dataset,
        transform,
        network,
        problem,
        build_schedule(config),
        _build_feed(config, dataset, network),
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
    key: Key[Array, ""], labels: Int[np.ndarray, "n"], num_classes: int, per_class: int
) -> Int[np.ndarray, "m"]:
    """Indices of `per_class` random images of each class, without replacement, by class."""
    chosen = []
    for c in range(num_classes):
        of_class = np.flatnonzero(labels == c)
        order = jax.random.permutation(jax.random.fold_in(key, c), len(of_class))
        chosen.append(of_class[np.asarray(order)[:per_class]])
    return np.concatenate(chosen)


def _build_matching(config, network, dataset, images_per_class):
    settings = config.matching
    builders = {"dm": _distribution, "dc": _gradient, "tm": _trajectory}
    if settings.name not in builders:
        raise UsageError(
            f"config.matching.name: expected one of {', '.join(builders)}, got {settings.name!r}"
        )
    total = images_per_class * dataset.num_classes
    if not 0 <= settings.batch_syn <= total:
        raise UsageError(
            f"config.matching.batch_syn: expected 0 (all) to {total} images, got "
            f"{settings.batch_syn}"
        )
    return builders[settings.name](settings, network, dataset, settings.batch_syn or total)


def _distribution(settings, network, dataset, batch_syn):
    return matching.DistributionMatching(
        network=network,
        num_classes=dataset.num_classes,
        **_per_class(settings, dataset, batch_syn),
        per_class_updates=settings.per_class_updates,
        class_by_class=settings.class_by_class,
        strategy=settings.strategy,
    )


def _gradient(settings, network, dataset, batch_syn):
    return matching.GradientMatching(
        network=network,
        num_classes=dataset.num_classes,
        **_per_class(settings, dataset, batch_syn),
        outer_loops=settings.outer_loops,
        inner_loops=settings.inner_loops,
        strategy=settings.strategy,
    )


def _trajectory(settings, network, dataset, batch_syn):
    del dataset
    return matching.TrajectoryMatching(
        network=network,
        syn_steps=settings.syn_steps,
        batch_syn=batch_syn,
        lr_init=settings.lr_init,
        lr_lr=settings.lr_lr,
        strategy=settings.strategy,
        rematerialize=settings.rematerialize,
    )


def _per_class(settings, dataset, batch_syn):
    counts = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    if not 1 <= settings.batch_real <= counts.min():
        raise UsageError(
            f"config.matching.batch_real: expected 1 to {counts.min()}, the size of the smallest "
            f"class of {dataset.name}, got {settings.batch_real}"
        )
    if batch_syn % dataset.num_classes:
        raise UsageError(
            f"config.matching.batch_syn: expected a multiple of the {dataset.num_classes} classes, "
            f"got {batch_syn}"
        )
    return dict(batch_real=settings.batch_real, batch_syn=batch_syn // dataset.num_classes)


def _build_feed(config, dataset, network):
    """What each step gets from the host: for TM, segments of random experts' trajectories."""
    settings = config.matching
    if settings.name != "tm":
        return lambda first, count: None
    store = experts.open_store(config, dataset, network)
    last = settings.max_start_epoch - 1 + settings.expert_epochs
    if last > store.epochs:
        raise UsageError(
            f"config.matching: max_start_epoch={settings.max_start_epoch} and "
            f"expert_epochs={settings.expert_epochs} reach epoch {last}, but the experts end at "
            f"epoch {store.epochs}"
        )

    def segment(step):
        random = np.random.default_rng([config.seed, step])
        chosen = random.integers(len(store), size=settings.experts_per_step)
        epochs = random.integers(settings.max_start_epoch, size=settings.experts_per_step)
        read = lambda offset: np.stack(
            [store.parameters(int(e), int(t) + offset) for e, t in zip(chosen, epochs, strict=True)]
        )
        return matching.Segments(read(0), read(settings.expert_epochs))

    def feed(first, count):
        segments = [segment(step) for step in range(first, first + count)]
        return jax.tree.map(lambda *a: np.stack(a), *segments)

    return feed


AT_LEAST_ONE = (
    "distill.steps_per_call",
    "distill.checkpoint_every",
    "evaluate.num_networks",
    "evaluate.epochs",
    "evaluate.batch_size",
    "network.width",
    "matching.syn_steps",
    "matching.max_start_epoch",
    "matching.expert_epochs",
    "matching.experts_per_step",
    "matching.outer_loops",
)
AT_LEAST_ZERO = (
    "matching.inner_loops",
    "init.num_steps",
    "distill.num_steps",
    "distill.eval_every",
    "seed",
)
POSITIVE = (
    "matching.lr_lr",
    "matching.lr_init",
    "init.learning_rate",
    "distill.learning_rate",
    "evaluate.learning_rate",
)


def _check(config: ConfigDict) -> None:
    checks.at_least(1, config, AT_LEAST_ONE)
    checks.at_least(0, config, AT_LEAST_ZERO)
    checks.positive(config, POSITIVE)
    if config.evaluate.optimizer not in ("sgd", "adam"):
        raise UsageError(
            f"config.evaluate.optimizer: expected sgd or adam, got {config.evaluate.optimizer!r}"
        )
