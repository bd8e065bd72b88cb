"""How good a distilled set is, beside what it must beat at the same bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gsdd_jax import artifact, networks
from gsdd_jax.artifact import DistilledSet
from gsdd_jax.errors import UsageError
from gsdd_jax.networks import Network
from gsdd_jax.runs import checks, experiment, workdir
from gsdd_jax.runs.components import build_network, build_transform, load_data, stream
from gsdd_jax.runs.experiment import Experiment, Judged
from gsdd_jax.runs.report import Reporter
from gsdd_jax.training import evaluate
from gsdd_jax.training.evaluate import Schedule

# What the evaluation reads of the config that made a set.
FIELDS = {
    "seed": int,
    "data.name": str,
    "data.subset": str,
    "data.resolution": int,
    "data.resize": str,
    "data.transform": str,
    "budget.ipc": int,
    "network.name": str,
    "network.precision": str,
    "matching.strategy": str,
    "evaluate.num_networks": int,
    "evaluate.optimizer": str,
    "evaluate.learning_rate": float,
    "evaluate.epochs": int,
    "evaluate.batch_size": int,
}
LATER = {"data.resize": "crop"}  # fields that older sets lack, and what they mean then
MAX_NETWORKS = 10_000  # beyond any use, and no file's to ask for: memory ends first
OPTIONS = "network.options"
# Older sets have these of any network, whether or not it has such an option.
OPTIONS_BEFORE = ("network.width", "network.depth")
# The published comparison across architectures (section A.2).
ACROSS = {"evaluate.optimizer": "adam", "evaluate.num_networks": 3}
RATES_ACROSS = {"alexnet": 1e-3, "vgg11": 1e-2, "resnet18": 1e-2, "vit": 5e-5}


class Accuracies(NamedTuple):
    """Of each network, in percent."""

    test: Float[np.ndarray, "s"]
    train: Float[np.ndarray, "s"]  # on real training images, the basis of every choice


@dataclasses.dataclass(frozen=True)
class Parts(Judged):
    """What an evaluation needs of an experiment: no objective, and so no experts."""

    network: Network
    schedule: Schedule


def summary(name: str, accuracies: list[float] | Float[np.ndarray, "s"]) -> dict[str, Any]:
    """Mean, standard deviation (of a sample) and each network's accuracy, in percent."""
    values = [float(a) for a in accuracies]  # float32 would round a mean to another digit
    return {
        f"{name}_accuracy": float(np.mean(values)),
        f"{name}_std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        f"{name}_accuracies": values,
    }


def distilled(
    config: ConfigDict,
    parts: Experiment | Parts,
    set_: DistilledSet,
    name: str,
    reporter: Reporter,
) -> Accuracies:
    """Of fresh networks trained on a distilled set, at the learning rate it carries."""
    return _test(parts, students(config, parts, set_, name, reporter))


def students(
    config: ConfigDict,
    parts: Experiment | Parts,
    set_: DistilledSet,
    name: str,
    reporter: Reporter,
) -> Any:
    """The stacked parameters of those networks."""
    images = parts.transform(set_.images())[None]
    return _train(
        config, parts, images, set_.labels, parts.schedule, set_.learning_rate, name, reporter
    )


def random_real(
    config: ConfigDict,
    parts: Experiment | Parts,
    num_images: int,
    per_class: int,
    name: str,
    reporter: Reporter,
) -> Accuracies:
    """Of networks trained on random real images, others for every network.

    They get as many steps of SGD as a distilled set of `num_images` gets, so that a small set is
    not at a disadvantage because its epochs are short.
    """
    train, num_classes = parts.dataset.train, parts.dataset.num_classes
    per_class = min(per_class, int(np.bincount(train.labels, minlength=num_classes).min()))
    keys = jax.random.split(
        stream(config.seed, f"random real {per_class}"), config.evaluate.num_networks
    )
    images = np.stack([experiment.initial_images(parts.dataset, k, per_class) for k in keys])
    labels = np.repeat(np.arange(num_classes), per_class).astype(np.int32)
    schedule = parts.schedule.with_steps(parts.schedule.num_steps(num_images), len(labels))
    rate = config.evaluate.learning_rate
    images = jnp.stack([parts.transform(jnp.asarray(i)) for i in images])
    trained = _train(config, parts, images, labels, schedule, rate, name, reporter)
    return _test(parts, trained)


def _train(config, parts, images, labels, schedule, learning_rate, name, reporter) -> Any:
    with reporter.phase(name, schedule.num_epochs) as progress, _named(name):
        return evaluate.train(
            parts.network,
            schedule,
            stream(config.seed, "evaluate"),
            images,
            jnp.asarray(labels),
            learning_rate=learning_rate,
            num_students=config.evaluate.num_networks,
            progress=progress.advance,
        )


def _test(parts, students) -> Accuracies:
    accuracies = (
        evaluate.accuracy(parts.network, students, images, labels)
        for images, labels in parts.judges
    )
    return Accuracies(*map(np.asarray, accuracies))


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
      UsageError: for a file that is no distilled set, whose provenance does not say how it was
        made or contradicts it, or that was made from other data than is there; for a setting that
        makes no sense.
    """
    set_, config, parts = opened(path, overrides, learning_rate)
    own = set_.provenance["config"]["network.name"] == config.network.name
    if learning_rate is not None or (not own and config.network.name in RATES_ACROSS):
        set_ = dataclasses.replace(set_, learning_rate=config.evaluate.learning_rate)
    reporter = Reporter(None)
    result = {"network": config.network.name, "learning_rate": set_.learning_rate}
    result |= summary("distilled", distilled(config, parts, set_, "distilled", reporter).test)
    real = random_real(config, parts, len(set_.labels), config.budget.ipc, "random real", reporter)
    return result | summary("random_real", real.test)


class Opened(NamedTuple):
    """A distilled set, and what evaluating it needs."""

    set_: DistilledSet
    config: ConfigDict
    parts: Parts


def opened(
    path: str | os.PathLike, overrides: Mapping[str, Any], learning_rate: float | None = None
) -> Opened:
    """A set from a file with the data and the network of its evaluation; as `evaluate_file`."""
    set_ = artifact.load(path)
    try:
        config = resolve(set_.provenance, overrides, learning_rate)
        return Opened(set_, config, _build(config, set_))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def resolve(
    provenance: Mapping[str, Any],
    overrides: Mapping[str, Any],
    learning_rate: float | None = None,
) -> ConfigDict:
    """The config of an evaluation: that which made the set, as far as it is needed, overridden.

    Where another network is named than the config's, its options are no longer those that the
    config gave to its own, but its defaults; one of `RATES_ACROSS` is trained as in the published
    comparison across architectures. All of that unless it is overridden too. Where the data lie and
    other settings of how it was run are never a file's to say.

    Args:
      provenance: of the set.
      overrides: dotted field -> value (None: as it is).
      learning_rate: as of `evaluate_file`.

    Raises:
      UsageError: naming the field that is missing, of a wrong type or out of range.
    """
    made_by = provenance.get("config")
    if not isinstance(made_by, dict):
        raise UsageError(
            f"provenance.config: expected the config that made the set, got {reprlib.repr(made_by)}"
        )
    made_by = LATER | made_by
    values = {field: _value(made_by, field, kind) for field, kind in FIELDS.items()}
    overrides = {field: value for field, value in overrides.items() if value is not None}
    network = overrides.get("network.name", values["network.name"])
    options = {}
    if network == values["network.name"]:
        options = _options(made_by, network)
    elif network in RATES_ACROSS:
        values |= ACROSS | {"evaluate.learning_rate": RATES_ACROSS[network]}
    options |= _below(OPTIONS, overrides)
    config = workdir.unflat(values | workdir.OPERATIONAL)
    config.network.options = ConfigDict(dataclasses.asdict(networks.architecture(network, options)))
    config.update_from_flattened_dict(overrides)
    if learning_rate is not None:
        config.evaluate.learning_rate = learning_rate
    checks.ranges(config, "seed", "data", "budget", "evaluate")
    if config.evaluate.num_networks > MAX_NETWORKS:
        raise UsageError(
            f"config.evaluate.num_networks: expected at most {MAX_NETWORKS}, "
            f"got {config.evaluate.num_networks}"
        )
    experiment.check_optimizer(config)
    experiment.check_strategy(config)
    return config


def _options(config: Mapping[str, Any], network: str) -> dict[str, Any]:
    """Of the network of the config that made a set; as `networks.architecture` takes them."""
    options = _below(OPTIONS, config)
    if options or OPTIONS in config:  # there it is when it is empty
        return options
    before = {f.removeprefix("network."): _value(config, f, int) for f in OPTIONS_BEFORE}
    has = dataclasses.asdict(networks.architecture(network, {}))
    return {name: value for name, value in before.items() if name in has}


def _below(group: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a group, by the rest of their names."""
    below = {field: value for field, value in fields.items() if field.startswith(f"{group}.")}
    return {field.removeprefix(f"{group}."): value for field, value in below.items()}


def _value(config: Mapping[str, Any], field: str, kind: type) -> Any:
    name = f"provenance.config[{field!r}]"
    if field not in config:
        raise UsageError(f"{name} is missing")
    value = config[field]
    if kind is str:
        expected, right = "text", isinstance(value, str)
    elif kind is int:
        expected = "an integer of 32 bits"
        right = type(value) is int and abs(value) < 2**32
    else:
        expected = "a number"
        right = type(value) in (int, float) and abs(value) < 2**32
    if not right:
        raise UsageError(f"{name}: expected {expected}, got {reprlib.repr(value)}")
    return kind(value)


def _build(config: ConfigDict, set_: DistilledSet) -> Parts:
    """Raises UsageError where data and set are not of each other."""
    made_from = set_.provenance.get("data")
    fingerprint = made_from.get("fingerprint") if isinstance(made_from, dict) else None
    if not isinstance(fingerprint, str):
        raise UsageError(
            "provenance.data.fingerprint: expected that of the data the set was made from, got "
            f"{reprlib.repr(made_from)}"
        )
    kind, resolution = set_.parameterization, config.data.resolution
    if resolution and kind.image_shape[:2] != (resolution, resolution):
        raise UsageError(
            f"provenance.config['data.resolution']: expected height and width of the set, "
            f"{kind.image_shape[:2]}, got {resolution}"
        )
    dataset = load_data(config)
    if dataset.fingerprint != fingerprint:
        raise UsageError(
            f"distilled from another version of {dataset.name} "
            f"(fingerprint {fingerprint[:12]!r}, found {dataset.fingerprint[:12]!r})"
        )
    found = (*kind.image_shape, len(set_.labels) // kind.images_per_class)
    expected = (*dataset.image_shape, dataset.num_classes)
    if found != expected:
        raise UsageError(
            f"parameterization: expected height, width, channels and number of classes {expected}, "
            f"as of {dataset.name}, got {found}"
        )
    return Parts(
        dataset,
        build_transform(config.data.transform, dataset),
        build_network(config.network, dataset),
        experiment.build_schedule(config),
    )
