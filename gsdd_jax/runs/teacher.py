"""Teacher: networks trained on the real images, whose mean outputs are soft labels."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.core import memory, mesh
from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import soft_labels
from gsdd_jax.data.soft_labels import LABELER
from gsdd_jax.formats import mixes
from gsdd_jax.formats.base import COPIES
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.networks import Network
from gsdd_jax.runs import evaluation
from gsdd_jax.runs.evaluation import Parts
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup import components, experts
from gsdd_jax.setup.components import build_network, check_networks, stream
from gsdd_jax.setup.experiment import Experiment
from gsdd_jax.storage import checkpoint
from gsdd_jax.storage.workdir import digest
from gsdd_jax.training import evaluate, labeling
from gsdd_jax.training.evaluate import Schedule, Students

TAKEN = "another process trains the same teacher; repeat the command when it has ended"


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Networks that have been trained."""

    network: Network
    params: Any  # stacked
    tested: evaluation.Accuracies | None  # on test images; None: there are none

    def logits(
        self, images: Float[Array, "m h w c"], labels: soft_labels.Labels
    ) -> Float[Array, "m k"]:
        """Returns the soft labels of transformed images, rounded to their grid."""
        found = evaluate.outputs(self.network, self.params, images)
        found = soft_labels.from_outputs(found, labels.temperature, labels.top)
        return soft_labels.values(soft_labels.codes(found, labels.bits), labels.bits)

    def as_stored(self, labels: soft_labels.Labels) -> labeling.Labeling:
        """Returns the network as a labeler, rounded as a set stores it."""
        return labeling.of_set(labeling.stored(self.network, self.params, labels))

    def labeled(
        self, set_: DistilledSet, labels: soft_labels.Labels, transform: Callable
    ) -> DistilledSet:
        """Returns a set with `labels.mixes` mixtures of each image, and soft labels of these and of
        the images as they are stored; labels of images that are there stay.

        With `labels.source=labeler` it is stored itself instead.
        """
        if labels.source == LABELER:
            return dataclasses.replace(
                set_, labeler=labeling.stored(self.network, self.params, labels)
            )
        images = parameterizations.rendered(set_)
        every = mixes.with_mixes(images, labels.mixes)
        there = [] if set_.soft_labels is None else [np.asarray(set_.soft_labels)]
        seen = every[len(images) :] if there else every
        logits = np.asarray(mesh.to_host(self.logits(transform(seen), labels)))
        return dataclasses.replace(
            set_,
            labels=np.tile(set_.labels, 1 + labels.mixes),
            soft_labels=np.concatenate([*there, logits]),
            label_bits=labels.bits,
            mixes=labels.mixes,
        )


def label_bytes(labeled: DistilledSet, slack: float = 0.01) -> int:
    """Returns bytes per class for the labels of images much like those of a labeled set."""
    return math.ceil((1 + slack) * labeled.label_bytes / labeled.num_classes)


def labeled_within(
    budget: int,
    make: Callable[[int], DistilledSet],
    reserved: int,
    taught_by: Teacher,
    labels: soft_labels.Labels,
    transform: Callable,
) -> DistilledSet:
    """Returns a set with a teacher's labels that takes at most `budget` bytes.

    Args:
      make: returns the images, stored so that they leave that many bytes per class free.
      reserved: bytes per class of the first try.

    Raises UsageError if the images cannot be stored in what labels leave.
    """
    for slack in (0.01, 0.05, 0.2):  # labels of coarser images may take more
        set_ = taught_by.labeled(make(reserved), labels, transform)
        if set_.num_bytes <= budget:
            return set_
        reserved = label_bytes(set_, slack)
    raise UsageError(
        f"budget: expected at least {-(-set_.num_bytes // set_.num_classes):,} bytes per class for "
        f"{counted(set_.format.images_per_class, 'image')} per class and their labels, got "
        f"{budget // set_.num_classes:,}"
    )


def trained(
    config: ConfigDict,
    parts: Experiment | Parts,
    workdir: pathlib.Path,
    reporter: Display,
    name: str = "teacher",
) -> Teacher:
    """Trains the teacher of `config`, or resumes it after its newest checkpoint.

    The checkpoints are in `workdir`, or in `config.teacher.dir`, which runs with the same data and
    network share.

    Raises:
      UsageError: memory cannot hold the images, a network diverges, or another process trains the
        same teacher.
    """
    settings, network, train = config.teacher, parts.network, parts.dataset.train
    check_networks("teacher.num_networks", settings.num_networks, network)
    size = 4 * len(train.labels) * math.prod(parts.dataset.image_shape)
    memory.check("config.labels.source=teacher: the real images", size, COPIES)
    schedule = Schedule(
        "sgd_cosine", settings.epochs, settings.batch_size, strategy=config.matching.strategy
    )
    optimizer = schedule.transformation(settings.learning_rate, len(train.labels))
    params, keys = evaluate.initial(
        network, stream(settings.seed, "teacher"), settings.num_networks
    )
    state = Students(params, jax.vmap(optimizer.init)(params), jnp.zeros((), jnp.int32))
    own = workdir / "checkpoints" / name
    opened = checkpoint.shared(own, settings.dir, identity(config, parts), reporter.line, TAKEN)
    with opened as checkpoints:
        state = checkpoints.restore(state) or state
        done, total = int(state.epoch), settings.epochs
        if done < total:
            real, labels = parts.on_device(train)
            images = real.transformed(real.stored)[None]
        with reporter.phase(name, total, done, unit="epoch") as progress:
            while done < total:
                rate = jnp.float32(settings.learning_rate)
                state, losses = evaluate.train_epochs(
                    network, schedule, state, keys, images, labels, rate, jnp.int32(1)
                )
                done += 1
                losses = mesh.to_host(losses)
                evaluate.check_losses(losses, done, settings.learning_rate)
                checkpoints.save(done, state)
                progress.advance(1, loss=float(losses.max()))
    found = None
    if parts.evaluates:
        found = evaluation.tested(parts, state.params, settings.learning_rate)
    return Teacher(network, state.params, found)


def labeler(
    config: ConfigDict, parts: Experiment | Parts, workdir: pathlib.Path, reporter: Display
) -> Teacher:
    """Trains the network that a set of `config` stores if it has a labeler; see `trained`."""
    config = components.of_labels(components.with_labeler(config))
    network = build_network(config.network, parts.dataset)
    parts = dataclasses.replace(parts, network=network)
    return trained(config, parts, workdir, reporter, LABELER)


def train_to_share(config: ConfigDict, display: Display) -> None:
    """Trains the teacher of a set of `config` into `config.teacher.dir`; raises like `trained`."""
    config = components.of_labels(config)
    with mesh.use_devices(config.mesh.devices):
        parts = evaluation.real_parts(config)
        trained(config, parts, pathlib.Path(config.teacher.dir), display)


def is_there(config: ConfigDict) -> bool:
    """Returns whether `config.teacher.dir` has a finished teacher of that many epochs, unopened."""
    return any(pathlib.Path(config.teacher.dir).glob(f"*/{config.teacher.epochs}"))


def identity(config: ConfigDict, parts: Experiment | Parts) -> str:
    """Returns a digest of everything that a teacher depends on."""
    return digest(settings(config) | {"data.fingerprint": parts.dataset.fingerprint})


def settings(config: ConfigDict) -> dict[str, Any]:
    """Returns all settings that a teacher depends on, by dotted name."""
    own = {f"teacher.{name}": value for name, value in config.teacher.items() if name != "dir"}
    of_experts = experts.settings(config)
    return own | {n: v for n, v in of_experts.items() if not n.startswith("experts.")}
