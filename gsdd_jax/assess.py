"""How good a distilled set is, beside what it must beat at the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gsdd_jax import artifact, data, evaluate, experiment, workdir
from gsdd_jax.artifact import DistilledSet
from gsdd_jax.components import stream
from gsdd_jax.errors import UsageError
from gsdd_jax.experiment import Experiment
from gsdd_jax.report import Reporter

HELD_OUT = 10_000  # training images that choose between sets, so that no test image does


class Accuracies(NamedTuple):
    """Of each network, in percent."""

    test: Float[np.ndarray, "s"]
    train: Float[np.ndarray, "s"]  # on real training images, the basis of every choice


def summary(name: str, accuracies: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (of a sample) and each network's accuracy, in percent."""
    values = [float(a) for a in accuracies]  # float32 would round a mean to another digit
    return {
        f"{name}_accuracy": float(np.mean(values)),
        f"{name}_std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        f"{name}_accuracies": values,
    }


def distilled(
    config: ConfigDict, parts: Experiment, set_: DistilledSet, name: str, reporter: Reporter
) -> Accuracies:
    """Of fresh networks trained on a distilled set, at the learning rate it carries."""
    images = parts.transform(set_.images())[None]
    return _train_and_test(
        config, parts, images, set_.labels, parts.schedule, set_.learning_rate, name, reporter
    )


def random_real(
    config: ConfigDict, parts: Experiment, per_class: int, name: str, reporter: Reporter
) -> Accuracies:
    """Of networks trained on random real images, others for every network.

    They get as many steps of SGD as the distilled set gets, so that a small set is not at a
    disadvantage because its epochs are short.
    """
    counts = np.bincount(parts.dataset.train.labels, minlength=parts.dataset.num_classes)
    per_class = min(per_class, int(counts.min()))
    keys = jax.random.split(
        stream(config.seed, f"random real {per_class}"), config.evaluate.num_networks
    )
    images = np.stack([experiment.initial_images(parts, key, per_class) for key in keys])
    labels = np.repeat(np.arange(parts.dataset.num_classes), per_class).astype(np.int32)
    steps = parts.schedule.num_steps(len(parts.labels))
    schedule = parts.schedule.with_steps(steps, len(labels))
    rate = config.evaluate.learning_rate
    images = jnp.stack([parts.transform(jnp.asarray(i)) for i in images])
    return _train_and_test(config, parts, images, labels, schedule, rate, name, reporter)


def _train_and_test(config, parts, images, labels, schedule, learning_rate, name, reporter):
    with reporter.phase(name, schedule.epochs) as progress, _named(name):
        students = evaluate.train(
            parts.network,
            schedule,
            stream(config.seed, "evaluate"),
            images,
            jnp.asarray(labels),
            learning_rate=learning_rate,
            num_students=config.evaluate.num_networks,
            progress=progress.advance,
        )

    def accuracy(split: data.Split) -> Float[np.ndarray, "s"]:
        images, labels = jnp.asarray(split.images), jnp.asarray(split.labels)
        return np.asarray(
            evaluate.accuracy(parts.network, students, images, labels, parts.transform)
        )

    train = parts.dataset.train
    chosen = np.linspace(0, len(train.labels) - 1, min(HELD_OUT, len(train.labels))).astype(int)
    held_out = data.Split(train.images[chosen], train.labels[chosen])
    return Accuracies(accuracy(parts.dataset.test), accuracy(held_out))


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def evaluate_file(
    path: str | os.PathLike,
    *,
    overrides: Mapping[str, Any],
    learning_rate: float | None = None,
) -> dict[str, Any]:
    """Trains networks on a distilled set from a file, and on the same bytes of real images.

    Args:
      path: of a `distilled.safetensors`.
      overrides: of the config that made the set: dotted field -> value (None: as it is).
      learning_rate: of the networks; None: the one that the set carries.

    Raises:
      UsageError: for a file that is no distilled set, or another data set than it was made from.
    """
    set_ = artifact.load(path)
    try:
        config = workdir.unflat(workdir.OPERATIONAL | set_.provenance["config"])
        fingerprint = set_.provenance["data"]["fingerprint"]
    except (KeyError, TypeError):
        raise UsageError(f"{path}: its provenance names no config and no data set") from None
    config.update_from_flattened_dict({k: v for k, v in overrides.items() if v is not None})
    if learning_rate is not None:
        set_ = dataclasses.replace(set_, learning_rate=learning_rate)
        config.evaluate.learning_rate = learning_rate
    parts = experiment.build(config)
    if parts.dataset.fingerprint != fingerprint:
        raise UsageError(
            f"{path}: distilled from another version of {parts.dataset.name} "
            f"(fingerprint {fingerprint[:12]}, found {parts.dataset.fingerprint[:12]})"
        )
    reporter = Reporter(None)
    result = {"network": config.network.name, "learning_rate": set_.learning_rate}
    result |= summary("distilled", distilled(config, parts, set_, "distilled", reporter).test)
    real = random_real(config, parts, config.budget.ipc, "random real", reporter)
    return result | summary("random_real", real.test)
