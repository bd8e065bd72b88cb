"""Baselines of random real images in the budget's bytes, uncompressed or compressed."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.config import bytes_per_class, validate
from gsdd_jax.core import mesh
from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data.soft_labels import LABELER, MIXED
from gsdd_jax.formats.coefficients import SIDE
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.labeler import TEMPERATURE
from gsdd_jax.runs import evaluation, teacher
from gsdd_jax.runs.evaluation import Parts
from gsdd_jax.runs.progress import Display
from gsdd_jax.runs.teacher import Teacher
from gsdd_jax.setup import experiment
from gsdd_jax.setup.components import build_parameterization, labels_of, stream
from gsdd_jax.setup.experiment import (
    COMPRESSED,
    REAL,
    TEMPERATURES,
    TRIALS,
    Experiment,
    FitParts,
    labeled_as,
)
from gsdd_jax.storage.workdir import decisive


class _Candidate(NamedTuple):
    """Settings of compressed images and of their soft labels, if any."""

    images_per_class: int
    side: int  # that images are stored at; 0: their own
    temperature: float
    bits: int
    mixes: int = 0

    def described(self, parts: Experiment | Parts) -> str:
        pixels = self.side or max(parts.dataset.image_shape[:2])
        where = f"{self.images_per_class} per class at {pixels} pixels"
        soft = f", temperature {self.temperature:g}" if self.temperature else ""
        return where + soft + (f", {counted(self.mixes, 'mixture')} of each" if self.mixes else "")

    def mixed(self, set_: DistilledSet, budget: int) -> _Candidate:
        """Returns the candidate with mixtures, and as many fewer images as their labels take."""
        mixes, bits = MIXED["mixes"], min(MIXED["bits"], set_.label_bits)
        more = ((1 + mixes) * bits / set_.label_bits - 1) * len(set_.packed_labels)
        images = int(self.images_per_class * budget / (budget + more))
        return self._replace(images_per_class=max(1, images), mixes=mixes, bits=bits)


class Baseline(NamedTuple):
    """Evaluation of an arm of real images."""

    accuracies: evaluation.Accuracies
    set_: DistilledSet | None  # that networks trained on; None for images that are not compressed


def evaluated(
    config: ConfigDict,
    parts: Experiment | Parts,
    num_images: int,
    arm: str,
    taught_by: Teacher | None,
    provenance: dict[str, Any],
    name: str,
    display: Display,
) -> Baseline | UsageError:
    """Evaluates networks trained on random real images, in the bytes of the config's budget.

    The number and size of compressed images are the best of `TRIALS` on training images. Then the
    temperature of soft labels is the best of that of the config and `TEMPERATURES`, and at last
    labeled mixtures (`MIXED`) of fewer images are compared with none. Each is judged by one
    network, at the learning rate that is best for the first. If none fits the budget, half as many
    images as the first has are tried, and so on. Returns the refusal of one image instead if that
    does not fit.

    Args:
      config: the experiment.
      parts: its data, transform, network and schedule.
      num_images: images of the distilled set, whose number of steps networks take.
      arm: a name of `REAL` or `COMPRESSED`.
      taught_by: the teacher of an arm of soft labels, or its labeler.
      provenance: provenance of a compressed set.
      name, display: name of the phase, and where it is shown.
    """
    if arm in REAL:
        found = evaluation.random_real(config, parts, num_images, arm, name, display)
        return Baseline(found, None)
    steps = parts.schedule.num_steps(num_images)
    one = config.copy_and_resolve_references()
    one.evaluate.num_networks = 1

    def trained(config, set_, name, chosen=False):
        schedule = parts.schedule.with_steps(steps, len(set_.labels))
        return evaluation.distilled(config, parts, set_, name, display, chosen, schedule)

    key = stream(config.seed, "compressed real images")

    @functools.cache  # of all temperatures
    def compress(kind):
        counts = FitParts(parts.dataset, kind, config.budget.split).counts
        images = experiment.initial_images(parts.dataset, key, counts)
        return kind.init(key, jnp.asarray(images))

    tried: dict[_Candidate, tuple[float, DistilledSet]] = {}
    refusals: list[UsageError] = []

    def judge(candidates):
        """Tries the candidates that are new, and returns the best of all so far."""
        for candidate in candidates:
            if candidate in tried:
                continue
            what = f"{arm.replace('_', ' ')}, trial of {candidate.described(parts)}"
            display.line(f"{what}: compressing")
            try:
                set_ = _stored(config, parts, arm, taught_by, provenance, candidate, compress)
            except UsageError as error:  # too many for the bytes
                refusals.append(error)
                continue
            rate = one.evaluate.learning_rate
            found = trained(one, dataclasses.replace(set_, learning_rate=rate), what, chosen=True)
            # Searched for the first only.
            one.evaluate.update(rates="", learning_rate=found.learning_rate)
            set_ = dataclasses.replace(set_, learning_rate=found.learning_rate)
            tried[candidate] = float(found.train[0]), set_
        # Of equals, the last.
        return max(reversed(tried), key=lambda candidate: tried[candidate][0], default=None)

    sizes = _sizes(config, parts, arm)
    while (best := judge(sizes)) is None:
        if sizes[0].images_per_class == 1:
            return refusals[-len(sizes)]  # all of the last round
        sizes = [sizes[0]._replace(images_per_class=sizes[0].images_per_class // 2)]
    if COMPRESSED[arm] == "teacher":
        factors, limits = np.array(TEMPERATURES), TEMPERATURE
        others = np.clip(config.labels.temperature * factors, *limits).tolist()
        best = judge([best._replace(temperature=other) for other in others])
        best = judge([best.mixed(tried[best][1], _budget(config, parts.dataset))])
    _, set_ = tried[best]
    return Baseline(trained(config, set_, name), set_)


def evaluate_real(
    config: ConfigDict, arm: str, workdir: pathlib.Path, display: Display
) -> dict[str, Any]:
    """Trains networks on random real images, at the bytes and for the steps of a config's set.

    A teacher has its checkpoints in `workdir`, or in `config.teacher.dir`. Raises UsageError if a
    setting is invalid, `arm` is unknown, or the budget is below one image per class.
    """
    arms = (*REAL, *COMPRESSED)
    if arm not in arms:
        raise UsageError(f"arm: expected one of {', '.join(arms)}, got {arm!r}")
    validate.ranges(config, "evaluate", "teacher")
    material = experiment.build_fit_parts(config)
    parts = evaluation.real_parts(config, material.dataset)
    with mesh.use_devices(config.mesh.devices):
        taught_by = None
        if COMPRESSED.get(arm) == LABELER:
            taught_by = teacher.labeler(config, parts, workdir, display)
        elif experiment.needs_teacher(arm):
            taught_by = teacher.trained(config, parts, workdir, display)
        name, count = arm.replace("_", " "), len(material.labels)
        found = evaluated(config, parts, count, arm, taught_by, {}, name, display)
    if isinstance(found, UsageError):
        raise found
    accuracies, set_ = found
    result = evaluation.summary(arm, accuracies.test)
    result |= evaluation.by_class(arm, accuracies.confusion)
    if set_ is not None:
        result[f"{arm}_learning_rate"] = accuracies.learning_rate
        result |= described(arm, set_)
    if taught_by is not None:
        result["teacher_accuracies"] = taught_by.tested.test.tolist()
    return result


def described(arm: str, set_: DistilledSet) -> dict[str, Any]:
    """Returns what was chosen for a compressed arm: images, their side, the labels' temperature."""
    kind = set_.format
    found = {
        f"{arm}_images_per_class": kind.images_per_class,
        f"{arm}_side": kind.side or max(kind.image_shape[:2]),
        f"{arm}_bytes_per_class": set_.num_bytes // kind.num_classes,
    }
    if COMPRESSED[arm] == "teacher":
        found[f"{arm}_temperature"] = set_.provenance["config"]["labels.temperature"]
        found |= {f"{arm}_mixes": set_.mixes, f"{arm}_bits": set_.label_bits}
    return found


def _budget(config, dataset) -> int:
    return dataset.num_classes * bytes_per_class(config, dataset.image_shape)


def _sizes(config, parts, arm) -> list[_Candidate]:
    """Returns the candidates of `TRIALS`; without soft labels their settings are 0."""
    shape, largest = parts.dataset.image_shape, max(parts.dataset.train_counts)
    there = bytes_per_class(config, shape)
    options = {"frames": parts.dataset.frames}
    suggested = parameterizations.find("dct").suggested_images(shape, there, options)
    labels = labels_of(labeled_as(config, arm))
    suggested = labels.suggested_images(suggested, there, shape, parts.dataset.num_classes)
    of_labels = labels.soft * config.labels.temperature, labels.soft * config.labels.bits
    sizes = []
    for share, part in TRIALS:
        side = round(part * max(shape[:2]))
        images = max(1, min(largest, round(share * suggested)))
        side = side if SIDE <= side < max(shape[:2]) else 0
        sizes.append(_Candidate(images, side, *of_labels))
    return list(dict.fromkeys(sizes))


def _stored(config, parts, arm, taught_by, provenance, candidate, compress) -> DistilledSet:
    trial, dataset = labeled_as(config, arm), parts.dataset
    trial.parameterization.name = "dct"
    trial.parameterization.options = ConfigDict({"side": candidate.side})
    trial.budget.images_per_class = candidate.images_per_class
    trial.init.num_steps = trial.distill.num_steps = 0
    if COMPRESSED[arm] == "teacher":
        of = ("temperature", "bits", "mixes")
        trial.labels.update({name: getattr(candidate, name) for name in of})
    labels = labels_of(trial)
    provenance = provenance | {"config": decisive(trial), "step": 0}
    rate, budget = config.evaluate.learning_rate, _budget(config, dataset)

    def made(reserved):
        of_data = dataset.image_shape, dataset.num_classes
        kind = build_parameterization(trial, *of_data, reserved, dataset.frames)
        classes = FitParts(dataset, kind, config.budget.split).labels
        return parameterizations.stored(kind, compress(kind), classes, rate, provenance)

    if labels.source == "class":
        return made(0)
    # Finer images than there will be, whose labels take nearly as many bytes.
    first = taught_by.labeled(made(0), labels, parts.transform)
    of_labels = taught_by, labels, parts.transform
    return teacher.labeled_within(budget, made, teacher.label_bytes(first), *of_labels)
