"""Estimates of a run's seconds and memory before it starts.

One training step of the network is timed on the device; the config says how often it runs. Other
factors are from the benchmarks. Estimates are good to about a factor of two.
"""

import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from gsdd_jax import networks
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import Dataset
from gsdd_jax.data.corruptions import NUM_STRENGTHS
from gsdd_jax.matching import Matching
from gsdd_jax.matching.base import FORWARD
from gsdd_jax.parameterizations import Parameterization
from gsdd_jax.setup.components import build_objective, build_parameterization, load_data
from gsdd_jax.setup.experiment import (
    HELD_OUT,
    REAL,
    baselines,
    build_schedule,
    is_taught,
    needs_teacher,
    num_trials,
    rates,
    real_per_class,
)

COMPILING = 20.0  # seconds to compile a run's programs
BATCH = 64  # images in the timed step
# Side, classes, training images and test images of the data sets that configs name.
SIZES = {
    "cifar10": (32, 10, 50_000, 10_000),
    "cifar10_mini": (32, 10, 3_000, 1_000),
    "cifar100": (32, 100, 50_000, 10_000),
    "tiny_imagenet": (64, 200, 100_000, 10_000),
    "imagenet2012": (128, 1000, 1_281_167, 50_000),
}
SUBSET = (128, 10, 13_000, 500)  # of imagenet2012: one of the six


class Cost(NamedTuple):
    """Estimated seconds and peak bytes."""

    seconds: float
    bytes: int


def of_experts(config: ConfigDict) -> Cost:
    settings = config.experts
    at_once = 1 if jax.default_backend() == "cpu" else settings.at_once
    return _of_training(config, settings, settings.num_experts, at_once)


def of_teacher(config: ConfigDict) -> Cost:
    number = config.teacher.num_networks
    return _of_training(config, config.teacher, number, number)


def _of_training(config: ConfigDict, settings: ConfigDict, number: int, at_once: int) -> Cost:
    """Returns the cost of training networks on real images."""
    side, classes, examples, _ = sizes(config)
    step = _step(network_of(config.network, side, classes))
    seconds = COMPILING + number * settings.epochs * examples * step.seconds
    batches = at_once * settings.batch_size * step.bytes
    return Cost(seconds, int(examples * side * side * 3 * 4 + batches))


def of_fit(config: ConfigDict) -> Cost:
    """Returns the cost of the initial fit, from a timed step on at most 64 images. If images share
    parts of a step, it is timed on one class."""
    side, classes, examples, _ = sizes(config)
    stored = _stored(config, side, classes)
    images = classes * stored.images_per_class
    if stored.by_image:
        step = _fit_step(stored, min(images, BATCH))
    else:
        step = _fit_step(_stored(config, side, 1), stored.images_per_class)
    seconds = COMPILING + config.init.num_steps * images * step.seconds
    return Cost(seconds, int(examples * side * side * 3 + images * step.bytes))


def of_run(config: ConfigDict) -> Cost:
    """Returns the cost of distillation and evaluations, without the fit."""
    side, classes, examples, _ = sizes(config)
    per_class = _stored(config, side, classes).images_per_class
    network = network_of(config.network, side, classes)
    counts = classes * (examples // classes,)
    objective = build_objective(config, network, classes, per_class, counts)
    work = objective.work(classes, classes * per_class)
    step, evaluation = _step(network), of_evaluation(config, {}, classes * per_class)
    steps, every = config.distill.num_steps, config.distill.eval_every
    evaluations = 1 + (steps // every if every else 0)
    return Cost(
        COMPILING + steps * work.steps * step.seconds + evaluations * evaluation.seconds,
        int(examples * side * side * 3 * 4 + max(work.at_once * step.bytes, evaluation.bytes)),
    )


def of_continual(config: ConfigDict, steps: int) -> Cost:
    """Returns the cost of class-incremental learning: runs that are not evaluated, and networks
    trained after each step, on half of the images on average."""
    run, evaluation, fit = of_run(config), of_evaluation(config, {}), of_fit(config)
    one = config.copy_and_resolve_references()
    one.evaluate.rates = ""
    seconds = fit.seconds + run.seconds + (steps - 1) / 2 * of_evaluation(one, {}).seconds
    if is_taught(config):
        seconds += of_teacher(config).seconds
    return Cost(seconds, max(run.bytes, evaluation.bytes, fit.bytes))


def evaluations_in_steps(
    config: ConfigDict, objective: Matching, dataset: Dataset, images: int, done: int = 0
) -> float:
    """Returns how many distillation steps take as long as the evaluations of a run of `images`
    images: those at the end, and those after more than `done` steps."""
    every, total = config.distill.eval_every, config.distill.num_steps
    distilled = 1 + (max(0, (total - 1) // every - done // every) if every else 0)
    trained = distilled * [images]
    for name in baselines(config, dataset):
        real = name in REAL and real_per_class(config, dataset, name) * dataset.num_classes
        trained.append(real or images)
        if more := num_trials(name):
            trained.append(images * more / config.evaluate.num_networks)
    held_out = distilled * min(len(dataset.train.labels), HELD_OUT)
    tested = len(trained) * len(dataset.test.labels) + held_out
    evaluated = config.evaluate.epochs * sum(trained) * _searched(config) + FORWARD * tested
    evaluated *= config.evaluate.num_networks
    if any(map(needs_teacher, baselines(config, dataset))):
        of = config.teacher
        evaluated += of.num_networks * of.epochs * len(dataset.train.labels)
    return evaluated / objective.work(dataset.num_classes, images).steps


def of_evaluation(config: ConfigDict, settings: Mapping[str, Any], images: int = 0) -> Cost:
    """Returns the cost of training on `images` (0: the run's) synthetic images and testing."""
    side, classes, examples, tests = sizes(config)
    overrides = settings.get("overrides", {})
    network = config.network
    if overrides.get("network.name", network.name) != network.name:
        network = ConfigDict({"name": overrides["network.name"], "precision": network.precision})
    native, side = side, settings.get("resolution") or side
    step = _step(network_of(network, side, classes))
    images = images or classes * _stored(config, native, classes).images_per_class
    count = overrides.get("evaluate.num_networks", config.evaluate.num_networks)
    epochs = overrides.get("evaluate.epochs", config.evaluate.epochs)
    tested = tests * (1 + NUM_STRENGTHS * len(settings.get("corrupted", ())))
    if not settings:  # only a run's own evaluations choose a set, by training images
        tested += min(examples, HELD_OUT)
    more = num_trials(settings.get("arm", "")) / count
    trained = epochs * images * (_searched(config) + more)
    seconds = count * (trained + FORWARD * tested) * step.seconds
    return Cost(seconds, int(count * build_schedule(config).batch(images) * step.bytes))


def _searched(config):
    """Returns the networks trained per evaluated one, those of a search for the rate included."""
    tried = rates(config)
    return 1 + (1 + len(tried)) / config.evaluate.num_networks if tried else 1


def no_data(config: ConfigDict) -> str:
    """Returns the reason that a config's data set cannot be read, or an empty text."""
    return _no_data(config.data.to_json())


@functools.cache
def _no_data(data: str) -> str:
    try:
        load_data(ConfigDict({"data": json.loads(data)}))
    except UsageError as error:
        return str(error)
    return ""


def sizes(config: ConfigDict) -> tuple[int, int, int, int]:
    """Returns side, classes, training images and test images of a config's data. Raises UsageError
    if unknown."""
    if config.data.name not in SIZES:
        raise UsageError(f"cost: the size of {config.data.name!r} is not known")
    side, classes, examples, tests = SUBSET if config.data.subset else SIZES[config.data.name]
    return config.data.resolution or side, classes, examples, tests


def _stored(config: ConfigDict, side: int, classes: int) -> Parameterization:
    return build_parameterization(config, (side, side, 3), classes)


def network_of(config: ConfigDict, side: int, classes: int) -> networks.Network:
    """Builds a config's network for square images; without options those by default."""
    return networks.build(
        config.name, image_shape=(side, side, 3), num_classes=classes,
        precision=config.precision, **config.get("options", {}),
    )  # fmt: skip


@functools.cache
def _step(network: networks.Network) -> Cost:
    """Returns the cost of one image in a training step."""

    def loss(params, images, labels):
        logits = network.apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    params = jax.jit(network.init)(jax.random.key(0))
    images = jnp.zeros((BATCH, *network.image_shape))
    return _of_one(BATCH, jax.grad(loss), params, images, jnp.zeros(BATCH, jnp.int32))


@functools.cache
def _fit_step(stored: Parameterization, images: int) -> Cost:
    """Returns the cost of one image in a step of a fit."""
    target = jnp.zeros((images, *stored.image_shape))
    params = stored.init(jax.random.key(0), target)
    return _of_one(images, jax.grad(lambda p: ((stored.render(p) - target) ** 2).mean()), params)


def _of_one(images: int, function: Callable, *arguments: Any) -> Cost:
    """Returns the cost per image of `function`, by the second of two timed calls."""
    compiled = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    start = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    seconds = time.perf_counter() - start
    return Cost(seconds / images, compiled.memory_analysis().temp_size_in_bytes // images)
