"""Estimates of a run's seconds and memory before it starts.

One training step of the network is timed on the device; the config says how often it runs. Other
factors are from the benchmarks. Estimates are good to about a factor of two.
"""

import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from gsdd_jax import networks
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import listed
from gsdd_jax.data import Dataset
from gsdd_jax.data.corruptions import NUM_STRENGTHS
from gsdd_jax.data.soft_labels import LABELER
from gsdd_jax.matching import Matching
from gsdd_jax.matching.base import FORWARD
from gsdd_jax.parameterizations import Parameterization
from gsdd_jax.setup.components import (
    build_objective,
    build_parameterization,
    labels_of,
    load_data,
    of_labels,
)
from gsdd_jax.setup.experiment import (
    COMPRESSED,
    HELD_OUT,
    REAL,
    baselines,
    build_schedule,
    is_taught,
    labeled_as,
    needs_teacher,
    num_trials,
    rates,
    real_per_class,
)

COMPILING = 20.0  # seconds to compile a run's programs
BATCH = 64  # images in the timed step


class Sizes(NamedTuple):
    """Sizes of a data set, as a run uses it."""

    side: int
    classes: int
    examples: int  # to train on
    tests: int
    colors: int = 3
    frames: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.side, self.side, self.frames * self.colors

    @property
    def numbers(self) -> int:
        """Numbers of all training images."""
        return self.examples * math.prod(self.shape)


# Those that configs name, as stored.
SIZES = {
    "cifar10": Sizes(32, 10, 50_000, 10_000),
    "cifar10_mini": Sizes(32, 10, 3_000, 1_000),
    "cifar100": Sizes(32, 100, 50_000, 10_000),
    "tiny_imagenet": Sizes(64, 200, 100_000, 10_000),
    "imagenet2012": Sizes(128, 1000, 1_281_167, 50_000),
    "ucf101": Sizes(256, 101, 9_537, 3_783, frames=16),
    "hmdb51": Sizes(112, 51, 3_570, 1_530, frames=16),
    "kinetics400": Sizes(64, 400, 240_000, 20_000, frames=8),
    "ssv2": Sizes(64, 174, 168_913, 24_777, frames=8),
    "moving_fashion": Sizes(64, 40, 4_000, 1_000, colors=1, frames=16),
}
SUBSET = Sizes(128, 10, 13_000, 500)  # of imagenet2012: one of the six


class Cost(NamedTuple):
    """Estimated seconds and peak bytes."""

    seconds: float
    bytes: int


def of_experts(config: ConfigDict) -> Cost:
    settings = config.experts
    at_once = 1 if jax.default_backend() == "cpu" else settings.at_once
    return _of_training(config, settings, settings.num_experts, at_once)


def of_teacher(config: ConfigDict) -> Cost:
    number, config = config.teacher.num_networks, of_labels(config)
    return _of_training(config, config.teacher, number, number)


def _of_training(config: ConfigDict, settings: ConfigDict, number: int, at_once: int) -> Cost:
    """Returns the cost of training networks on real images."""
    data = sizes(config)
    step = _step(network_of(config.network, data))
    seconds = COMPILING + number * settings.epochs * data.examples * step.seconds
    batches = at_once * settings.batch_size * step.bytes
    return Cost(seconds, int(4 * data.numbers + batches))


def of_fit(config: ConfigDict) -> Cost:
    """Returns the cost of the initial fit, from a timed step on at most 64 images. If images share
    parts of a step, it is timed on one class."""
    data = sizes(config)
    stored = build_stored(config, data)
    images = data.classes * stored.images_per_class
    if stored.by_image:
        step = _fit_step(stored, min(images, BATCH))
    else:
        # All classes share a labeler.
        of_images = data.shape, data.classes, stored.images_per_class
        reserved = labels_of(config).bytes_per_class(*of_images)
        one = build_stored(config, data._replace(classes=1), reserved)
        step = _fit_step(one, stored.images_per_class)
    seconds = COMPILING + config.init.num_steps * images * step.seconds
    return Cost(seconds, int(data.numbers + images * step.bytes))


def of_run(config: ConfigDict) -> Cost:
    """Returns the cost of distillation and evaluations, without the fit."""
    data = sizes(config)
    per_class = build_stored(config, data).images_per_class
    network = network_of(config.network, data)
    counts = data.classes * (data.examples // data.classes,)
    objective = build_objective(config, network, data.classes, per_class, counts)
    work = objective.work(data.classes, data.classes * per_class)
    step, evaluation = _step(network), of_evaluation(config, {}, data.classes * per_class)
    one = step.seconds
    if objective.follows_labeler and config.labels.source == LABELER:
        one += FORWARD * _step(network_of(of_labels(config).network, data)).seconds
    steps, every = config.distill.num_steps, config.distill.eval_every
    evaluations = 1 + (steps // every if every else 0)
    return Cost(
        COMPILING + steps * work.steps * one + evaluations * evaluation.seconds,
        int(4 * data.numbers + max(work.at_once * step.bytes, evaluation.bytes)),
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
    native = sizes(config)
    overrides = settings.get("overrides", {})
    network = config.network
    if overrides.get("network.name", network.name) != network.name:
        network = ConfigDict({"name": overrides["network.name"], "precision": network.precision})
    data = native._replace(side=settings.get("resolution") or native.side)
    step = _step(network_of(network, data))
    images = images or data.classes * build_stored(config, native).images_per_class
    count = overrides.get("evaluate.num_networks", config.evaluate.num_networks)
    epochs = overrides.get("evaluate.epochs", config.evaluate.epochs)
    tested = data.tests * (1 + NUM_STRENGTHS * len(settings.get("corrupted", ())))
    if not settings:  # only a run's own evaluations choose a set, by training images
        tested += min(data.examples, HELD_OUT)
    arm = settings.get("arm", "")
    trained = epochs * images * (_searched(config) + num_trials(arm) / count)
    seconds = count * (trained + FORWARD * tested) * step.seconds
    labeled = labeled_as(config, arm) if arm in COMPRESSED else config
    if labeled.labels.source == LABELER:
        labeler = _step(network_of(of_labels(labeled).network, data))
        seconds += FORWARD * count * trained * labeler.seconds
        seconds += of_teacher(labeled).seconds if arm else 0  # a run's own is counted apart
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


def sizes(config: ConfigDict) -> Sizes:
    """Returns the sizes of a config's data. Raises UsageError if unknown.

    Classes that a config chooses have their share of the images.
    """
    if config.data.name not in SIZES:
        raise UsageError(f"cost: the size of {config.data.name!r} is not known")
    of = SUBSET if config.data.subset else SIZES[config.data.name]
    if chosen := len(listed("config.data.classes", config.data.classes)):
        examples, tests = (number * chosen // of.classes for number in (of.examples, of.tests))
        of = of._replace(classes=chosen, examples=examples, tests=tests)
    side, frames = config.data.resolution or of.side, config.data.frames or of.frames
    return of._replace(side=side, frames=frames)


def build_stored(config: ConfigDict, data: Sizes, reserved: int | None = None) -> Parameterization:
    """Builds the storage of a config's images; `reserved` as for `build_parameterization`."""
    return build_parameterization(config, data.shape, data.classes, reserved, data.frames)


def network_of(config: ConfigDict, data: Sizes) -> networks.Network:
    """Builds a config's network; without options one by default."""
    options = dict(config.get("options", {}))
    return networks.architecture(config.name, options).build(
        image_shape=data.shape, num_classes=data.classes, precision=config.precision,
        frames=data.frames,
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
