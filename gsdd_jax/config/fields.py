"""Fields of an experiment: the only declaration of their defaults, ranges and help.

Components' options are fields of their dataclasses. `Config` describes the groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from gsdd_jax import matching, networks, parameterizations
from gsdd_jax.core.fields import LEAST, POSITIVE, SEED, Shrink, defaults, field, meaning, options
from gsdd_jax.core.trees import dotted
from gsdd_jax.data.augment import DSA
from gsdd_jax.data.shares import SPLITS
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.formats.base import MAX_FRAMES, MAX_SIDE

RATE = (LEAST, 1e3)  # of networks
# Bounds on untrusted files: more would exceed any time or memory.
NETWORKS, EPOCHS = (1, 10_000), (1, 100_000)
COMPONENTS = {"parameterization": parameterizations, "network": networks, "matching": matching}
HERDING, RECOGNIZED, MOMENTS = "herding", "recognized", "moments"
BY_TEACHER = HERDING, RECOGNIZED  # real images that a teacher chooses
NAMES = tuple(f"{group}.name" for group in COMPONENTS)


@dataclasses.dataclass(frozen=True)
class Mesh:
    devices: int = field(0, "number of devices; 0: all", 0)
    groups: int = field(0, "groups of devices that divide classes or students; 0: automatic", 0)


@dataclasses.dataclass(frozen=True)
class Data:
    name: str = field("cifar10_mini", "data set: a TFDS name, or cifar10_mini, which is included")
    subset: str = field("", "subset of imagenet2012: nette, woof, fruit, yellow, meow, squawk")
    classes: str = field(
        "", "classes to keep, in the order of the labels: names or indices, by commas; empty: all"
    )
    resolution: int = field(0, "image size in pixels per side; 0: as stored", 0, MAX_SIDE)
    resize: str = field("crop", "method to make images square: crop (to the center) or squash")
    frames: int = field(
        0, "frames of a clip, evenly spaced; 0: as stored, or images", 0, MAX_FRAMES
    )
    transform: str = field(
        "normalize", "transform of inputs: normalize (per channel) or zca (whitening)",
        choices=("normalize", "zca"),
    )  # fmt: skip
    dir: str = field("", "directory of TFDS data sets; empty: $TFDS_DATA_DIR or TFDS's default")
    on_device: str = field(
        "auto", "storage of training images: whole (on the device), streamed or auto",
        choices=("auto", "whole", "streamed"),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Budget:
    ipc: int = field(1, "budget in float32 images per class (IPC)", 1, 100_000)
    bytes: int = field(0, "budget in bytes per class; 0: the bytes of budget.ipc", 0, 2**32 - 1)
    images_per_class: int = field(
        30,
        "synthetic images per class (GPC), if the format leaves a choice; 0: automatic",
        automatic=True,
        shrink=Shrink(0.5, 1),
    )
    split: str = field(
        "even",
        "share of a class in all images: even, or by its training images: sqrt or proportional",
        choices=tuple(SPLITS),
    )


@dataclasses.dataclass(frozen=True)
class Parameterization:
    name: str = field("gaussian", "format of the synthetic images: {names}")
    options: Mapping[str, Any] = field(dict, "options of the parameterization, such as ablations")


@dataclasses.dataclass(frozen=True)
class Network:
    name: str = field("convnet", "network architecture: {names}")
    precision: str = field(
        "default", "precision of matmuls: default (TF32 on a GPU), float32 or bfloat16"
    )
    options: Mapping[str, Any] = field(dict, "options of the network")


@dataclasses.dataclass(frozen=True)
class Init:
    images: str = field(
        "real",
        "images to fit: real (random), herding (real, nearest to their class's mean features by a "
        "teacher), recognized (random ones that a teacher classifies correctly), solid (mean "
        "colors), moments (drawn by mean and deviation of the class) or none "
        "(no fit)",
        choices=("real", *BY_TEACHER, "solid", MOMENTS, "none"),
    )
    num_steps: int = field(
        50_000, "steps of the initial fit; published: 50,000", 0, shrink=Shrink(1, 20)
    )
    learning_rate: float = field(
        0.1,
        "learning rate of the initial fit; published: 0.1 (CIFAR-10), 0.01 (others); 0: automatic",
        *POSITIVE,
        automatic=True,
    )
    halve_means_every: int = field(
        20_000,
        "fit steps between halvings of the means' learning rate; 0: never",
        0,
        shrink=Shrink(1, 1),
    )
    set: str = field("", "distilled set to begin with, in place of a fit; empty: none")
    dir: str = field("", "directory of fits that runs share; empty: the work directory")


@dataclasses.dataclass(frozen=True)
class Matching:
    name: str = field("dm", "objective: {names}")
    strategy: str = field(DSA, "DSA augmentations, joined by _")
    precision: str = field("", "precision of the objective's matmuls; empty: network.precision")
    options: Mapping[str, Any] = field(dict, "options of the objective")


@dataclasses.dataclass(frozen=True)
class Teacher:
    dir: str = field("", "directory of teachers that runs share; empty: the work directory")
    num_networks: int = field(
        1, "number of teacher networks, whose outputs are averaged", *NETWORKS
    )
    epochs: int = field(
        30, "training epochs of the teacher; 0: automatic", *EPOCHS, automatic=True,
        shrink=Shrink(1, 1),
    )  # fmt: skip
    batch_size: int = field(128, "batch size of teacher training")
    learning_rate: float = field(
        0.03, "initial SGD learning rate of the teacher; cosine decay", *RATE
    )
    seed: int = field(0, "seed of the teacher, apart from config.seed: runs share it", *SEED)


@dataclasses.dataclass(frozen=True)
class Experts:
    dir: str = field("", "directory of the experts; empty: runs/experts/<data and network>")
    num_experts: int = field(
        100, "number of experts (networks trained on the real images)", *NETWORKS,
        shrink=Shrink(1, 2),
    )  # fmt: skip
    epochs: int = field(50, "training epochs per expert", *EPOCHS, shrink=Shrink(1, 3))
    batch_size: int = field(256, "batch size of expert training")
    learning_rate: float = field(
        0.01, "SGD learning rate of experts; no momentum, no decay", *POSITIVE
    )
    # By the compiled program's count, one at a time moves the fewest bytes per expert.
    at_once: int = field(
        1, "experts trained in parallel on a GPU; a CPU trains one at a time", *NETWORKS
    )
    seed: int = field(0, "seed of the experts, apart from config.seed: runs share them", *SEED)


@dataclasses.dataclass(frozen=True)
class Distill:
    num_steps: int = field(20_000, "distillation steps", 0, shrink=Shrink(1, 10))
    learning_rate: float = field(1e-3, "learning rate of the synthetic images", *POSITIVE)
    average: float = field(  # below 1 in float32
        0.0, "decay of a moving average of the parameters; 0: none", 0, 0.9999999
    )
    steps_per_call: int = field(50, "steps per compiled call; results do not depend on it")
    checkpoint_every: int = field(
        500, "distillation steps between checkpoints; a single process saves every minute, too"
    )
    eval_every: int = field(
        0,
        "steps between evaluations, which choose the best set; 0: last step only",
        0,
        shrink=Shrink(1, 5),
    )
    snapshot_every: int = field(0, "steps between snapshots for figures; 0: no snapshots", 0)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    num_networks: int = field(
        5, "networks trained per set, each with another initialization", *NETWORKS,
        shrink=Shrink(1, 2),
    )  # fmt: skip
    optimizer: str = field(
        "sgd", "optimizer: sgd, adam, sgd_cosine or adamw",
        choices=("sgd", "adam", "sgd_cosine", "adamw"),
    )  # fmt: skip
    learning_rate: float = field(0.01, "learning rate, unless the objective learns one", *RATE)
    rates: str = field(
        "", "comma-separated learning rates, chosen on real training images; empty: none"
    )
    epochs: int = field(
        1000, "training epochs (sgd adds one, as published); 0: automatic", *EPOCHS,
        automatic=True, shrink=Shrink(1, 2),
    )  # fmt: skip
    batch_size: int = field(
        256, "batch size; published: 256 (TM), 128 (DM, DC); 0: equal parts of at most 256", 0
    )
    baselines: str = field(
        "fitted,random_real,random_real_uint8", "comma-separated baselines to evaluate"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Experiment: distribution matching at the smallest budget, unless fields say otherwise."""

    seed: int = field(0, "random seed; the same seed gives the same bytes", *SEED)
    scale: float = field(
        1.0,
        "relative size of the experiment; 0.01 takes minutes on a CPU; fields set by a flag keep "
        "their value",
        LEAST,
        1,
    )
    mesh: Mesh = field(Mesh, "devices and how they share the work")
    data: Data = field(Data, "data set")
    budget: Budget = field(Budget, "bytes of the distilled set")
    parameterization: Parameterization = field(Parameterization, "format of the synthetic images")
    network: Network = field(Network, "network of the objective, the experts and the evaluation")
    init: Init = field(Init, "fit of the images that distillation starts from")
    matching: Matching = field(Matching, "objective of the distillation")
    labels: Labels = field(Labels, "labels of the distilled set")
    teacher: Teacher = field(Teacher, "networks whose outputs are soft labels")
    experts: Experts = field(
        Experts, "networks trained on the real images, which tm, datm and ncfm need"
    )
    distill: Distill = field(Distill, "optimization of the images")
    evaluate: Evaluate = field(Evaluate, "networks trained on the distilled set")


def default() -> ConfigDict:
    """Returns the default config, with the options of its network and its objective."""
    config = ConfigDict(dataclasses.asdict(Config()))
    for group in ("network", "matching"):
        config[group].options = component_options(group, config[group].name)
    return config


def component_options(group: str, name: str) -> ConfigDict:
    """Returns the default options of the network or the objective `name`."""
    return ConfigDict(defaults(COMPONENTS[group].find(name)))


def known(names: Mapping[str, str] | None = None) -> dict[str, dataclasses.Field]:
    """Returns all fields by dotted name, with options of the components `names`, by group.

    Unknown components have no options.
    """
    found = {}
    for of in dataclasses.fields(Config):
        group = of.default_factory
        if group is dataclasses.MISSING:
            found[of.name] = of
            continue
        found |= {f"{of.name}.{f.name}": f for f in dataclasses.fields(group)}
        kinds = COMPONENTS[of.name].known() if of.name in COMPONENTS and names else {}
        if kind := kinds.get(names and names.get(of.name)):
            found |= {f"{of.name}.options.{n}": f for n, f in options(kind).items()}
    return found


def helps(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the help of each field, with options of the components that `config` names."""
    names = {group: config.get(f"{group}.name") for group in COMPONENTS}
    return {name: help_of(name, of) for name, of in known(names).items()}


def defaults_and_helps(config: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Returns default and help of each field, likewise."""
    original = default()
    for group in ("network", "matching"):
        name = config.get(f"{group}.name")
        is_known = name in COMPONENTS[group].known()
        original[group].options = component_options(group, name) if is_known else ConfigDict()
    said = helps(config)
    values = dotted(original.to_dict())
    return {name: (value, said.get(name, "")) for name, value in values.items()}


def help_of(name: str, of: dataclasses.Field) -> str:
    """Returns the help of a field, with the names of available components."""
    names = COMPONENTS[name.partition(".")[0]].known() if name in NAMES else ()
    return meaning(of).help.format(names=", ".join(names))


def group_help() -> dict[str, str]:
    """Returns the help of each group."""
    groups = {f.name: f for f in dataclasses.fields(Config) if callable(f.default_factory)}
    return {name: meaning(of).help for name, of in groups.items()}
