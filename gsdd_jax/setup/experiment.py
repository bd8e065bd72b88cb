"""Building of an experiment's parts: data, transform, parameterization, network, objective."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8
from ml_collections import ConfigDict

from gsdd_jax import data, matching
from gsdd_jax.config import bytes_per_class, validate
from gsdd_jax.config.fields import BY_TEACHER, MOMENTS
from gsdd_jax.core import devices, memory
from gsdd_jax.core.errors import UsageError, counted, located, ranged
from gsdd_jax.core.fields import listed
from gsdd_jax.core.trees import parent
from gsdd_jax.data import augment, rows, shares
from gsdd_jax.data.items import some
from gsdd_jax.data.soft_labels import LABELER
from gsdd_jax.data.transforms import RealImages, to_device
from gsdd_jax.formats.base import COPIES, is_unequal
from gsdd_jax.networks import Network
from gsdd_jax.parameterizations import Parameterization
from gsdd_jax.setup import components, experts
from gsdd_jax.setup.components import build_network, build_transform, load_data
from gsdd_jax.training.distill import Problem
from gsdd_jax.training.evaluate import Schedule

HELD_OUT = 10_000  # training images that choose between sets in place of test images


@dataclasses.dataclass(frozen=True)
class EvaluationParts:
    """A data set and its transform, for evaluation on real images."""

    dataset: data.Dataset
    transform: Any

    @property
    def evaluates(self) -> bool:
        """Whether networks can be tested: there are two classes or more, and test images."""
        return can_be_tested(self.dataset)

    @functools.cached_property
    def tested_on(self) -> tuple[RealImages, Int[Array, "n"]]:
        """Test images with labels on the device, shared by all evaluations."""
        return self.on_device(self.dataset.test)

    @functools.cached_property
    def chosen_on(self) -> tuple[RealImages, Int[Array, "n"]]:
        """Training images that choose between sets, with labels on the device."""
        train = self.dataset.train
        chosen = np.linspace(0, len(train.labels) - 1, min(HELD_OUT, len(train.labels))).astype(int)
        return self.on_device(data.Split(rows.take(train.images, chosen), train.labels[chosen]))

    def on_device(self, split: data.Split) -> tuple[RealImages, Int[Array, "n"]]:
        """Returns the images of a split and their labels on the device."""
        return to_device(split.images, self.transform), jnp.asarray(split.labels)


@dataclasses.dataclass(frozen=True)
class FitParts:
    """Real images, and the storage of synthetic ones."""

    dataset: data.Dataset
    parameterization: Parameterization
    split: str  # `config.budget.split`

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of synthetic images of each class."""
        num_images = self.dataset.num_classes * self.parameterization.images_per_class
        return shares.counts(self.dataset.train_counts, num_images, self.split)

    @property
    def labels(self) -> Int[np.ndarray, "m"]:
        """Returns the class of each synthetic image, in class order."""
        return np.repeat(np.arange(self.dataset.num_classes, dtype=np.int32), self.counts)

    @property
    def warnings(self) -> list[str]:
        """Returns a warning if classes have fewer real images than synthetic ones."""
        there, sizes = self.counts, self.dataset.train_counts
        few = [c for c, size in enumerate(sizes) if size < there[c]]
        if not few:
            return []
        classes = [f"{self.dataset.class_names[c]!r} ({sizes[c]})" for c in few]
        how_many = ranged([there[c] for c in few], "training image")
        return [
            f"warning: fewer than {how_many} of {some(classes)}: several images of "
            "such a class start from one real image, shifted, and show no more than it does"
        ]


@dataclasses.dataclass(frozen=True)
class Experiment(FitParts, EvaluationParts):
    """Parts of one experiment; each can be combined with any of the others."""

    network: Network  # of evaluation and experts; the problem holds that of matching
    problem: Problem
    schedule: Schedule
    host_inputs: Callable[[int, int], Any]  # (first step, number of steps) -> host inputs


def build_fit_parts(config: ConfigDict, dataset: data.Dataset | None = None) -> FitParts:
    """Builds the parts of a fit. Raises UsageError, naming the field, for invalid settings.

    `dataset` replaces that of `config.data`.
    """
    validate.ranges(config, "seed", "data", "budget", "init", "labels")
    validate.options(config)
    if config.labels.mixes and config.labels.source != "teacher":
        raise UsageError(
            f"config.labels.mixes: expected 0 with config.labels.source={config.labels.source}, "
            f"got {config.labels.mixes}; only a teacher labels mixtures"
        )
    dataset = dataset or load_data(config)
    _check_labeler(config, dataset.frames)
    shape, classes = dataset.image_shape, dataset.num_classes
    parameterization = components.build_parameterization(
        config, shape, classes, frames=dataset.frames
    )
    _check_memory(config, dataset, parameterization)
    if min(dataset.train_counts) == 0:
        raise UsageError(f"config.data.name: {dataset.name} has a class without training images")
    largest = max(dataset.train_counts)
    fits = config.init.images not in (MOMENTS, "none") and not config.init.set
    if fits and parameterization.images_per_class > largest:
        raise UsageError(
            f"config.budget: {counted(parameterization.images_per_class, 'image')} per class to "
            f"start from, but {dataset.name} has no class of more than {largest}; lower it, or set "
            "config.init.images=none"
        )
    parts = FitParts(dataset, parameterization, config.budget.split)
    if is_unequal(parts.counts) and (held := parameterization.arrays_by_class()):
        raise UsageError(
            f"config.budget.split: expected even with {parameterization.name}, whose {held[0]} "
            f"are stored once per class, for equally many images; got {config.budget.split}"
        )
    return parts


def _check_labeler(config, frames) -> None:
    """Raises UsageError for settings that a labeler has no use for."""
    if config.labels.source != LABELER:
        return
    refused = {
        "labels.learned": (config.labels.learned, False, "it labels views, not images"),
        "teacher.num_networks": (config.teacher.num_networks, 1, "one network is stored"),
    }
    if frames > 1:
        raise UsageError(
            f"config.labels.source: expected class or teacher with clips, got {LABELER}, a network "
            "of images"
        )
    for name, (found, expected, why) in refused.items():
        if found != expected:
            raise UsageError(
                f"config.{name}: expected {expected} with config.labels.source={LABELER}, got "
                f"{found}; {why}"
            )


def _check_memory(config, dataset, parameterization) -> None:
    """Raises UsageError if the device cannot hold the synthetic set while it is optimized."""
    count = dataset.num_classes * parameterization.images_per_class
    images = 4 * count * math.prod(dataset.image_shape)
    budget = dataset.num_classes * bytes_per_class(config, dataset.image_shape)
    there = devices.accelerator_memory()
    memory.check(f"config.budget: {count:,} images", images, COPIES, there)
    # At most two bytes become a float32 with moments and a gradient.
    memory.check(f"config.budget: {memory.shown(budget)}", 2 * 4 * budget, there=there)


def build(config: ConfigDict, dataset: data.Dataset | None = None) -> Experiment:
    """Builds an experiment. Raises UsageError, naming the field, for invalid settings.

    `dataset` replaces that of `config.data`.
    """
    material, network, problem = build_problem(config, dataset)
    dataset, objective = material.dataset, problem.matching
    # Before the transform, which may take a minute: experts may be missing.
    store = None
    if objective.follows_experts:
        store = experts.open_store(config, dataset, network)
    host_inputs = functools.partial(objective.host_inputs, store, config.seed)
    transform, schedule = build_transform(config.data.transform, dataset), build_schedule(config)
    of_images = dataset, transform, material.parameterization, material.split
    return Experiment(*of_images, network, problem, schedule, host_inputs)


def build_problem(
    config: ConfigDict, dataset: data.Dataset | None = None
) -> tuple[FitParts, Network, Problem]:
    """Builds the parts of an experiment without its experts, whose settings it checks.

    Raises UsageError like `build`.
    """
    check_strategy(config)
    validate.ranges(config, "distill", "evaluate", "teacher")
    check_baselines(config)
    rates(config)
    kind = matching.find(config.matching.name)
    _check_required(config, kind)
    material = build_fit_parts(config, dataset)
    if kind.is_private:
        public = data.with_public_constants(material.dataset)
        material = dataclasses.replace(material, dataset=public)
    dataset, parameterization = material.dataset, material.parameterization
    network = build_network(config.network, dataset)
    components.check_networks("evaluate.num_networks", config.evaluate.num_networks, network)
    for arm in REAL.keys() & set(baselines(config, dataset)):
        check_real(config, dataset, arm)
    matched = build_network(config.network, dataset, config.matching.precision)
    objective = components.build_objective(
        config, matched, dataset.num_classes, parameterization.images_per_class,
        dataset.train_counts,
    )  # fmt: skip
    if objective.follows_experts:
        validate.ranges(config, "experts")
        objective.check_experts(config.experts.epochs)
    for option in ("pool_size", "syn_steps"):  # with two moments; a pool is copied once
        kept = getattr(objective, option)
        components.check_networks(f"matching.options.{option}", kept, network, copies=6)
    if objective.compares_classes or config.labels.source != "class":
        components.check_classes(dataset)
    counts = material.counts if is_unequal(material.counts) else ()
    if counts and not objective.unequal_classes:
        able = ", ".join(n for n, kind in matching.known().items() if kind.unequal_classes)
        raise UsageError(
            f"config.budget.split: expected even with the objective {objective.name}, got "
            f"{config.budget.split}; others work with {able}"
        )
    problem = Problem(
        parameterization, objective, dataset.num_classes, config.distill.average, counts
    )
    return material, network, problem


def _check_required(config: ConfigDict, objective: type[matching.Matching]) -> None:
    """Raises UsageError, naming it, for the first field without the value that it must have."""
    for name, value in objective.requires.items():
        group, last = parent(config, name)
        if group[last] != value:
            why = ", which keeps each training image private" if objective.is_private else ""
            raise UsageError(
                f"config.{name}: expected {value!r} with the objective {objective.name}{why}, got "
                f"{group[last]!r}"
            )


def build_schedule(config: ConfigDict) -> Schedule:
    given = {name: config.evaluate[name] for name in ("optimizer", "epochs", "batch_size")}
    return Schedule(**given, strategy=config.matching.strategy)


def initial_images(
    dataset: data.Dataset,
    key: Key[Array, ""],
    counts: Sequence[int],
    chosen: Int[np.ndarray, "n"] | None = None,
) -> Float[np.ndarray, "m h w c"]:
    """Returns real images, `counts` of each class, ordered by class, in [0, 1].

    They are random, or those `chosen`. Images of smaller classes repeat, each time with another
    shift: equal copies would stay equal under every objective.
    """
    train = dataset.train
    if chosen is None:
        chosen = choose_by_class(key, train.labels, counts)
    images = rows.take(train.images, chosen)
    if len(chosen) < sum(counts):
        labels = train.labels[chosen]
        images = np.concatenate([
            _repeated(jax.random.fold_in(key, c), images[labels == c], count)
            for c, count in enumerate(counts)
        ])  # fmt: skip
    return images.astype(np.float32) / 255


def choose_by_class(
    key: Key[Array, ""], labels: Int[np.ndarray, "n"], counts: Sequence[int]
) -> Int[np.ndarray, "m"]:
    """Returns indices of random images, `counts` of each class, or all of a class of fewer, without
    replacement, ordered by class."""
    chosen = []
    for c, count in enumerate(counts):
        of_class = np.flatnonzero(labels == c)
        chosen.append(of_class[order_of_class(key, c, len(of_class))[:count]])
    return np.concatenate(chosen)


def order_of_class(key: Key[Array, ""], label: int, count: int) -> Int[np.ndarray, "n"]:
    """Returns the random order in which a class's `count` images are chosen."""
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, label), count))


def _repeated(
    key: Key[Array, ""], images: UInt8[np.ndarray, "n h w c"], count: int
) -> UInt8[np.ndarray, "{count} h w c"]:
    """Returns `count` images: the given ones, then copies shifted by up to an eighth of a side,
    borders repeated. Shifts differ as long as there are enough."""
    if len(images) >= count:
        return images
    height, width = images.shape[1:3]
    down, right = max(1, height // 8), max(1, width // 8)
    shifts = [(y, x) for y in range(2 * down + 1) for x in range(2 * right + 1)]
    shifts.remove((down, right))
    order = np.asarray(jax.random.permutation(key, len(shifts))).tolist()
    wider = np.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), "edge")
    out = list(images)
    for i in range(len(images), count):
        times, place = divmod(i, len(images))
        y, x = shifts[order[(times - 1) % len(order)]]
        out.append(wider[place, y : y + height, x : x + width])
    return np.stack(out)


# Bytes per number of random real images that fill the budget.
REAL = {"random_real": 4, "random_real_uint8": 1}
# Random real images in a compressed format: the source of their labels.
COMPRESSED = {
    "random_real_dct": "class",
    "random_real_dct_soft": "teacher",
    "random_real_dct_labeler": LABELER,
}
# Their candidates: images per class, relative to the number suggested by bytes, and stored side,
# relative to the original side. More images are coarser.
TRIALS = ((1.0, 1.0), (1.6, 0.75), (2.4, 0.5))
TEMPERATURES = (0.5, 2.0)  # of soft labels, relative to `labels.temperature`; for the best of these
# Sets evaluated in addition to the distilled one.
ALL_REAL = "all_real"  # the teacher, which is trained on all real images
BASELINES = ("fitted", *REAL, *COMPRESSED, ALL_REAL)
KEPT = ("distilled", *COMPRESSED)  # arms whose sets a run keeps


def strongest(result: Mapping[str, Any], arms: Iterable[str] = (*REAL, *COMPRESSED)) -> str | None:
    """Returns the arm with the highest accuracy in a result, by default of real images, if any."""
    there = [arm for arm in arms if f"{arm}_accuracy" in result]
    return max(there, key=lambda arm: result[f"{arm}_accuracy"], default=None)


def can_be_tested(dataset: data.Dataset) -> bool:
    """Returns whether networks have classes to tell apart, and test images."""
    return dataset.num_classes > 1 and len(dataset.test.labels) > 0


def is_taught(config: ConfigDict) -> bool:
    """Returns whether a run trains a teacher for its own set, baselines aside."""
    return config.labels.source != "class" or config.init.images in BY_TEACHER


def needs_teacher(arm: str) -> bool:
    return COMPRESSED.get(arm) == "teacher" or arm == ALL_REAL


def labeled_as(config: ConfigDict, arm: str) -> ConfigDict:
    """Returns the config whose set has the labels of a compressed arm, without mixtures."""
    if COMPRESSED[arm] == LABELER:
        return components.with_labeler(config)
    config = config.copy_and_resolve_references()
    config.labels.update(source=COMPRESSED[arm], learned=False, mixes=0)
    return config


def num_trials(arm: str) -> int:
    """Returns the candidates of an arm, each judged by one network."""
    if arm not in COMPRESSED:
        return 0
    return len(TRIALS) + (len(TEMPERATURES) + 1) * (COMPRESSED[arm] == "teacher")


def check_strategy(config: ConfigDict) -> None:
    with located("config.matching.strategy"):
        augment.parse_strategy(config.matching.strategy)


def check_baselines(config: ConfigDict) -> None:
    """Raises UsageError for an unknown name in `evaluate.baselines`, or one given twice."""
    for name in listed("config.evaluate.baselines", config.evaluate.baselines):
        if name not in BASELINES:
            raise UsageError(
                f"config.evaluate.baselines: expected some of {','.join(BASELINES)}, "
                f"comma-separated, got {name!r}"
            )


def baselines(config: ConfigDict, dataset: data.Dataset) -> list[str]:
    """Returns `evaluate.baselines`, without real images that the budget cannot hold, and without a
    labeler of clips, which there is not.

    Where nothing is evaluated there are none.
    """
    if not can_be_tested(dataset):
        return []
    names = listed("config.evaluate.baselines", config.evaluate.baselines)
    names = [n for n in names if n not in REAL or real_per_class(config, dataset, n)]
    return [n for n in names if dataset.frames == 1 or COMPRESSED.get(n) != LABELER]


def real_per_class(config: ConfigDict, dataset: data.Dataset, arm: str) -> int:
    """Returns the random real images per class that the budget's bytes hold."""
    image = REAL[arm] * math.prod(dataset.image_shape)
    return bytes_per_class(config, dataset.image_shape) // image


def check_real(config: ConfigDict, dataset: data.Dataset, arm: str) -> tuple[int, ...]:
    """Returns the number of random real images of each class, split as the distilled ones, of an
    arm of `REAL`; a class of fewer gives all. Raises UsageError if the budget is below one image,
    or if memory cannot hold the different images of every network.
    """
    per_class = real_per_class(config, dataset, arm)
    if not per_class:
        shape = dataset.image_shape
        raise UsageError(
            f"config.evaluate.baselines: expected a budget of at least "
            f"{REAL[arm] * math.prod(shape):,} bytes, one image per class for {arm}, got "
            f"{bytes_per_class(config, shape):,}; leave {arm} out"
        )
    counts = shares.counts(
        dataset.train_counts, dataset.num_classes * per_class, config.budget.split
    )
    per_network = int(np.minimum(counts, dataset.train_counts).sum())
    count = config.evaluate.num_networks * per_network
    what = f"config.evaluate.num_networks: {count:,} real images for all of them"
    memory.check(what, 4 * count * math.prod(dataset.image_shape), COPIES)
    return counts


def rates(config: ConfigDict) -> list[float]:
    """Returns the learning rates of `evaluate.rates`; raises UsageError for others than different
    numbers in range."""
    where, found = "config.evaluate.rates", []
    for text in listed(where, config.evaluate.rates):
        try:
            found.append(float(text))
        except ValueError:
            raise UsageError(f"{where}: expected numbers, by commas, got {text!r}") from None
        validate.value("evaluate.learning_rate", found[-1], where)
    if len(set(found)) < len(found):
        raise UsageError(f"{where}: expected different numbers, got {config.evaluate.rates!r}")
    return found
