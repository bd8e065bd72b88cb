"""Components named in a config: random streams, data, transform, parameterization, network."""

import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from gsdd_jax import data, matching, networks, parameterizations
from gsdd_jax.config import bytes_per_class
from gsdd_jax.core import devices, memory, mesh, processes, program
from gsdd_jax.core.errors import UsageError, counted, printable
from gsdd_jax.data import transforms
from gsdd_jax.data.soft_labels import LABELER, OF_LABELER, Labels
from gsdd_jax.matching import Matching
from gsdd_jax.networks import Network
from gsdd_jax.networks.convnet import ConvNet
from gsdd_jax.parameterizations import Parameterization
from gsdd_jax.training import experts


def stream(seed: int, name: str) -> Key[Array, ""]:
    """Returns an independent key for each named use of a run's seed."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def load_data(config: ConfigDict) -> data.Dataset:
    """Loads the config's data set. Raises UsageError if it names none."""
    if not config.data.name:
        raise UsageError(
            "config.data.name: expected a data set, as by --config.data.name=NAME; "
            f"`{program.command('prepare')}` makes one of your own pictures"
        )
    of = config.data
    some = dict(subset=of.subset or None, resolution=of.resolution or None, classes=of.classes)
    some |= dict(resize=of.resize, frames=of.frames or None)
    return data.load(of.name, **some, data_dir=of.dir or None)


def check_classes(dataset: data.Dataset) -> None:
    """Raises UsageError for a single class, which networks have nothing to tell apart from."""
    if dataset.num_classes < 2:
        (name,) = dataset.class_names
        raise UsageError(
            f"{dataset.name}: expected two classes or more, for networks to tell apart, got only "
            f"{printable(name)!r}"
        )


def check_same(dataset: data.Dataset) -> None:
    """Raises UsageError if this process's images differ from those of the first process."""
    expected = processes.from_first(dataset.fingerprint.encode).decode()
    if dataset.fingerprint != expected:
        raise UsageError(
            f"config.data.name: {dataset.name} of process {jax.process_index()} has other images "
            f"than that of process 0 (fingerprints {dataset.fingerprint[:8]} and {expected[:8]})"
        )


def described(config: ConfigDict, dataset: data.Dataset, *more: str) -> str:
    """Returns one line on the run: data, network, `more` and devices."""
    width = config.network.options.get("width")
    return "; ".join(
        (
            f"{dataset.name} {dataset.shown_shape}, {counted(dataset.num_classes, 'class')}",
            config.network.name + (f" of width {width}" if width else ""),
            *more,
            f"on {devices.described(mesh.size())}",
        )
    )


def build_transform(name: str, dataset: data.Dataset) -> transforms.Normalize | transforms.ZCA:
    """Returns the data set's transform, applied after rendering."""
    if name == "zca":
        return transforms.cached_zca(dataset.train.images, dataset.fingerprint)
    return transforms.Normalize(jnp.asarray(dataset.mean), jnp.asarray(dataset.std))


def build_parameterization(
    config: ConfigDict,
    image_shape: tuple[int, int, int],
    num_classes: int,
    reserved: int | None = None,
    frames: int = 1,
) -> Parameterization:
    """Builds the storage of images of that shape for all classes, within the config's budget.

    They are clips if `frames` is more than one.

    The bytes of soft labels are deducted: `reserved` per class, by default the most that they may
    take. Raises UsageError for invalid settings.
    """
    images = config.budget.images_per_class
    if reserved is None:
        reserved = labels_of(config).bytes_per_class(image_shape, num_classes, images)
    return parameterizations.build(
        config.parameterization.name, image_shape, images_per_class=images,
        bytes_per_class=bytes_per_class(config, image_shape), num_classes=num_classes,
        reserved=reserved, frames=frames,
        **config.parameterization.options,
    )  # fmt: skip


def labels_of(config: ConfigDict) -> Labels:
    return Labels(**config.labels)


def with_labeler(config: ConfigDict) -> ConfigDict:
    """Returns a copy of `config` whose set has a labeler in place of its labels."""
    config = config.copy_and_resolve_references()
    if config.labels.source != LABELER:
        config.labels.update(source=LABELER, learned=False, mixes=0, **OF_LABELER)
        config.teacher.num_networks = 1  # is stored
    return config


def of_labels(config: ConfigDict) -> ConfigDict:
    """Returns the config of the teacher that labels a set: a labeler has its own network."""
    if config.labels.source != LABELER:
        return config
    config = config.copy_and_resolve_references()
    config.network.name = ConvNet.name
    config.network.options = ConfigDict({"width": config.labels.width})  # no other option stays
    return config


def build_network(config: ConfigDict, dataset: data.Dataset, precision: str = "") -> Network:
    """Builds the config's network for the images and classes of `dataset`.

    A non-empty `precision` replaces the config's.
    """
    return networks.architecture(config.name, dict(config.options)).build(
        image_shape=dataset.image_shape,
        num_classes=dataset.num_classes,
        precision=precision or config.precision,
        frames=dataset.frames,
    )


def build_objective(
    config: ConfigDict,
    network: Network,
    num_classes: int,
    images_per_class: int,
    train_counts: tuple[int, ...],
) -> Matching:
    """Builds the config's objective under `network` for a synthetic set of that size, and so many
    training images of each class."""
    return matching.build(
        config.matching.name, network=network, num_classes=num_classes,
        images_per_class=images_per_class, strategy=config.matching.strategy,
        labels=labels_of(config), train_counts=train_counts, **config.matching.options,
    )  # fmt: skip


def check_networks(field: str, count: int, network: Network, copies: int = 3) -> None:
    """Raises UsageError, naming the field, if memory cannot hold `count` networks at once.

    `copies` are the arrays of a network's size, by default parameters, gradients and moments.
    """
    numbers = experts.num_parameters(network)
    if there := devices.accelerator_memory():
        there *= jax.device_count()  # shared by all devices
    what = f"config.{field}: {count:,} networks of {numbers:,} parameters"
    memory.check(what, 4 * count * numbers, copies, there)
