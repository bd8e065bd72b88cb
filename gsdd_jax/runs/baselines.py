"""Strong baselines: random real images, compressed into the budget's bytes, nothing distilled."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.config import bytes_per_class
from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError
from gsdd_jax.data.soft_labels import Labels
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.runs import evaluation, teacher
from gsdd_jax.runs.progress import Display, Reporter
from gsdd_jax.runs.teacher import Teacher
from gsdd_jax.setup import experiment
from gsdd_jax.setup.components import build_parameterization, stream
from gsdd_jax.setup.experiment import COMPRESSED, EvaluationParts, FitParts
from gsdd_jax.storage.workdir import decisive

# What is tried: images per class, relative to what their bytes suggest, and their stored side,
# relative to their own. More images are coarser.
TRIALS = ((0.6, 1.0), (1.0, 1.0), (1.6, 0.75), (2.4, 0.5))


def compressed(
    config: ConfigDict,
    parts: EvaluationParts,
    arm: str,
    taught_by: Teacher | None,
    provenance: dict[str, Any],
    display: Display,
) -> DistilledSet | None:
    """Returns random real images as cosine coefficients, in the bytes of the config's budget.

    Their number and size are the best of `TRIALS` on held-out training images, by one network each.
    None: the budget has not the bytes of one image per class.

    Args:
      config: the experiment.
      parts: its data, transform, network and schedule.
      arm: a name of `COMPRESSED`.
      taught_by: source of the labels, for an arm of soft ones.
      provenance: that of the sets.
      display: display of the progress.
    """
    tried = {}
    for images_per_class, side in _sizes(config, parts):
        try:
            set_ = _stored(config, parts, arm, taught_by, provenance, images_per_class, side)
        except UsageError:  # too many for the bytes
            continue
        name = f"{arm.replace('_', ' ')}, {images_per_class} per class"
        one = config.copy_and_resolve_references()
        one.evaluate.num_networks = 1
        schedule = as_long(parts, config, set_)
        found = evaluation.distilled(one, parts, set_, name, display, True, schedule)
        tried[float(found.train[0])] = set_
    return tried[max(tried)] if tried else None


def evaluate_real(
    config: ConfigDict, arm: str, workdir: pathlib.Path, display: Display
) -> dict[str, Any]:
    """Evaluates an arm of `COMPRESSED` without a run; see `evaluation.evaluate_real`.

    A teacher has its checkpoints in `workdir`, or in `config.teacher.dir`.
    """
    parts = evaluation.real_parts(config)
    reporter, name = Reporter(None, display=display), arm.replace("_", " ")
    with mesh.use_devices(config.mesh.devices):
        soft = COMPRESSED[arm]
        taught_by = teacher.trained(config, parts, workdir, reporter) if soft else None
        if (set_ := compressed(config, parts, arm, taught_by, {}, display)) is None:
            raise UsageError(f"config.budget: expected the bytes of one image per class for {arm}")
        schedule = as_long(parts, config, set_)
        found = evaluation.distilled(config, parts, set_, name, display, schedule=schedule)
    result = evaluation.summary(arm, found.test) | evaluation.by_class(arm, found.confusion)
    return (
        result
        | {
            f"{arm}_learning_rate": found.learning_rate,
            f"{arm}_images_per_class": set_.format.images_per_class,
            f"{arm}_bytes_per_class": set_.num_bytes // parts.dataset.num_classes,
            f"{arm}_side": set_.format.side,
        }
        | ({"teacher_accuracies": taught_by.accuracies} if soft else {})
    )


def as_long(parts: EvaluationParts, config: ConfigDict, set_: DistilledSet) -> evaluation.Schedule:
    """Returns a schedule for a set with the steps that networks take on the distilled set."""
    shape, classes = parts.dataset.image_shape, parts.dataset.num_classes
    count = classes * build_parameterization(config, shape, classes).images_per_class
    return parts.schedule.with_steps(parts.schedule.num_steps(count), len(set_.labels))


def _sizes(config, parts) -> dict[tuple[int, int], None]:
    """Returns the images per class and stored sides (0: their own) that are tried."""
    shape, largest = parts.dataset.image_shape, max(parts.dataset.train_counts)
    kind = parameterizations.find("dct")
    suggested = kind.suggested_images(shape, bytes_per_class(config, shape), {})
    sizes = {}
    for share, part in TRIALS:
        side = round(part * max(shape[:2]))
        images = max(1, min(largest, round(share * suggested)))
        sizes[images, side if 8 <= side < max(shape[:2]) else 0] = None
    return sizes


def _stored(config, parts, arm, taught_by, provenance, images_per_class, side) -> DistilledSet:
    labels = Labels(**config.labels)
    labels = dataclasses.replace(
        labels, learned=False, source="teacher" if COMPRESSED[arm] else "class"
    )
    trial = config.copy_and_resolve_references()
    trial.parameterization.name, trial.parameterization.options = "dct", ConfigDict({"side": side})
    trial.budget.images_per_class = images_per_class
    trial.labels.update(dataclasses.asdict(labels))
    dataset = parts.dataset
    kind = build_parameterization(trial, dataset.image_shape, dataset.num_classes)
    key = stream(config.seed, "compressed real images")
    images = experiment.initial_images(dataset, key, images_per_class)
    params = kind.init(key, jnp.asarray(images))
    logits = None
    if labels.soft:
        shown = parts.transform(kind.render(params))
        logits = np.asarray(taught_by.logits(shown, labels))
    return parameterizations.stored(
        kind,
        params,
        FitParts(dataset, kind).labels,
        config.evaluate.learning_rate,
        provenance | {"config": decisive(trial), "step": 0},
        logits,
        labels.bits if labels.soft else 0,
    )
