"""Distillation and evaluation of arrays in memory, without a config file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import reprlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from gsdd_jax import data, matching, parameterizations
from gsdd_jax.config import adapt, own, validate
from gsdd_jax.config.fields import known
from gsdd_jax.core import interrupts, mesh
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.fields import check_value
from gsdd_jax.core.files import check_path
from gsdd_jax.core.trees import dotted, unflat
from gsdd_jax.data.arrays import check_frames, distinct, from_arrays, indices, pixels
from gsdd_jax.data.dataset import channel_mean_std
from gsdd_jax.data.items import some
from gsdd_jax.formats import file
from gsdd_jax.formats.clips import check_shape
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.union import union
from gsdd_jax.report.document import distill_with_report
from gsdd_jax.runs import evaluation, experts
from gsdd_jax.runs.distill import check, distill_to
from gsdd_jax.runs.progress import Display
from gsdd_jax.setup import components, experiment, provenance
from gsdd_jax.setup.provenance import ON_IMAGES, ON_SET, check_acting


class Accuracy(float):
    """Mean accuracy of several networks on the test images, in percent.

    Attributes:
      accuracies: accuracy of each network.
      std: their sample standard deviation.
      by_class: mean accuracy on each class.
      confusion: counts [class, predicted class] over all networks.
      learning_rate: learning rate of the networks.
    """

    accuracies: list[float]
    std: float
    by_class: list[float]
    confusion: Int[np.ndarray, "k k"]
    learning_rate: float

    def __new__(cls, found: evaluation.Accuracies):
        said = evaluation.summary("", found.test)
        self = super().__new__(cls, said["_accuracy"])
        self.accuracies, self.std = said["_accuracies"], said["_std"]
        self.by_class = evaluation.by_class("", found.confusion)["_by_class"]
        self.confusion, self.learning_rate = found.confusion, found.learning_rate
        return self

    def __str__(self) -> str:
        return evaluation.shown(self.accuracies)


@checked
@interrupts.delayed()
def distill(
    images: Any,
    labels: Any,
    bytes_per_class: int | None = None,
    *,
    objective: str | None = None,
    test: Any = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    workdir: str | os.PathLike | None = None,
    verbose: bool = True,
    config: Mapping[str, Any] | ConfigDict | None = None,
    **fields: Any,
) -> DistilledSet:
    """Distills labeled images into a small synthetic set, as `launch.distill` does.

    Takes minutes on a CPU, shows its progress, and prints test accuracies at the end. Equal
    arguments give equal bytes.

    Args:
      images, labels, test, class_names, name: see `gsdd_jax.data.from_arrays`. With `test`, the
        accuracies of baselines of the same bytes are printed, too; with () nothing is evaluated.
      bytes_per_class: bytes of the set per class; None: the bytes of one float32 image.
      objective: "dm" (the default), "bptt", "dc" or "frepo"; "taught", "dm" with a teacher's
        labels, also of mixtures; "dp_dm", which is differentially private; "tm",
        "datm" or "ncfm", which train experts first; "none", compressed real images with a teacher's
        labels; or "labeler", such images with a network that labels every view, often the strongest
        set.
      workdir: directory for the run's files, those of the command; the same call resumes an
        interrupted run. None: nothing is kept.
      verbose: whether to show the progress on standard output.
      config: fields of the config by dotted name, such as `{"labels.source": "teacher"}`; `gsdd
        distill --helpfull` lists them.
      fields: likewise by group, except `labels`: `distill={"num_steps": 1000}`, `seed=1` or
        `parameterization={"name": "pixels"}`.

    Raises UsageError for invalid arguments and for what is given twice, and like
    `gsdd_jax.runs.distill.distill_to`. Ctrl-C raises KeyboardInterrupt after the running call of
    JAX; a second one raises at once.
    """
    given = fields_of(config, fields)
    _check_once(given, "bytes_per_class", bytes_per_class, "budget.bytes", "budget.ipc")
    _check_once(given, "name", name, "data.name")
    base = base_of(objective, given)
    given = {"data.name": "arrays" if name is None else name} | given
    dataset = from_arrays(images, labels, test, class_names=class_names, name=given["data.name"])
    dataset = data.only(dataset, given.get("data.classes", ""))
    if test is None:
        given = {"evaluate.baselines": ""} | given
    if bytes_per_class is not None:
        check_value("bytes_per_class", "int", bytes_per_class, (1, None))
        given["budget.bytes"] = bytes_per_class
    return of_dataset(dataset, config_of(base, given, dataset), workdir, verbose)


def of_dataset(
    dataset: data.Dataset, config: ConfigDict, workdir: str | os.PathLike | None, verbose: bool
) -> DistilledSet:
    """Distills a data set by a config that is adapted to it; see `distill`."""
    display = display_of(verbose)
    with _directory(workdir) as folder:
        if matching.find(config.matching.name).follows_experts:
            check(config, folder, dataset)  # before minutes of training
            config.experts.dir = config.experts.dir or str(folder / "experts")
            experts.train_all(config, display, dataset)
        run = distill_to if workdir is None else distill_with_report
        result = run(config, folder, display, dataset)
        found = dataclasses.replace(file.load(folder / file.NAME), source="")
    if config.data.transform == "zca":  # it is not in the file
        zca = components.build_transform("zca", dataset)
        found.__dict__["transform"] = jax.tree.map(np.asarray, zca)
    if len(dataset.test.labels):
        arms = ("distilled", "fitted", experiment.strongest(result))
        display.line(f"test accuracy:  {evaluation.compared(arms, result)}")
    return found


@checked
@interrupts.delayed()
def evaluate(
    train: Any,
    test_images: Any,
    test_labels: Any,
    *,
    learning_rate: float | None = None,
    transform: Any = None,
    verbose: bool = True,
    config: Mapping[str, Any] | ConfigDict | None = None,
    **fields: Any,
) -> Accuracy:
    """Trains fresh networks on a distilled set, or on any images, and tests them.

    Args:
      train: a distilled set, with its own settings as defaults; or a list of sets with class names,
        or images and labels, with the settings that `distill` evaluates by. Arrays are as for
        `gsdd_jax.data.from_arrays`.
      test_images, test_labels: likewise. A distilled set's labels are indices, or its
        `class_names`; those of several sets are labels as `distill` takes them.
      learning_rate: learning rate of the networks; None: that of the set, the smallest of several
        sets, or that of the config.
      transform: source of a distilled set's transform; see `DistilledSet.find_transform`.
      verbose: whether to show the progress on standard output.
      config: fields of the config by dotted name, such as `{"network.options.width": 32}`. On a set
        act `seed`, `mesh.devices`, `network`, `matching.strategy`, and of `evaluate` all but
        `rates` and `baselines`. On images act these, `evaluate.rates`, `data.classes` and
        `data.transform`. Others are refused.
      fields: likewise by group, such as `evaluate={"epochs": 300}`.

    Raises UsageError for invalid arguments, and if a network diverges; KeyboardInterrupt as
    `distill`.
    """
    test = test_images, test_labels
    display = display_of(verbose)
    given = fields_of(config, fields)
    _check_once(given, "learning_rate", learning_rate, "evaluate.learning_rate")
    if learning_rate is not None:
        given["evaluate.learning_rate"] = learning_rate
    if isinstance(train, DistilledSet):
        return _of_set(train, test, transform, given, display)
    if isinstance(train, tuple | list) and train and isinstance(train[0], DistilledSet):
        if transform is not None:
            raise UsageError("transform: only for one distilled set")
        return _of_sets(train, test, given, display)
    if not isinstance(train, tuple | list) or len(train) != 2:
        got = type(train).__name__
        got += f" of {len(train)}" if isinstance(train, tuple | list) else ""
        raise UsageError(
            f"train: expected a distilled set, a list of these, or (images, labels), got {got}"
        )
    if transform is not None:
        raise UsageError("transform: only for a distilled set; set data={'transform': 'zca'}")
    check_acting(given, ON_IMAGES)
    dataset = data.only(from_arrays(*train, test), given.get("data.classes", ""))
    # Epochs follow from the largest class; what they train on would choose the rate.
    size = {"budget.images_per_class": max(dataset.train_counts), "evaluate.rates": ""}
    config = config_of(own(), size | given, dataset)
    parts = evaluation.real_parts(config, dataset)
    with mesh.use_devices(config.mesh.devices):
        return Accuracy(evaluation.on_training_images(config, parts, "evaluate", display))


def _of_set(set_, test, transform, given, display) -> Accuracy:
    """Evaluates a distilled set by its own config, with the fields `given`."""
    check_acting(given, ON_SET)
    for field, value in given.items():
        validate.value(field, value)
    rate = given.pop("evaluate.learning_rate", None)
    config = provenance.resolve(set_.provenance, given | {"evaluate.rates": ""}, rate)
    names = list(map(str, range(set_.num_classes)))
    if set_.class_names is not None:
        names = distinct(set_.class_names, "train.class_names")
    check_frames(test[0], "test_images", set_.format.frames)
    images = pixels(test[0], "test_images")
    expected, frames = set_.format.image_shape, set_.format.frames
    check_shape(images.shape[1:], expected, frames, "test_images: ")
    labels = indices(test[1], "test_labels", names, len(images))
    nothing = data.Split(images[:0], labels[:0])
    size = dict(num_classes=len(names), class_names=tuple(names), mean=(), std=(), fingerprint="")
    size["frames"] = set_.format.frames
    dataset = data.Dataset(config.data.name, nothing, data.Split(images, labels), **size)
    found = set_.find_transform(transform)
    parts = evaluation.parts_of(config, dataset, jax.tree.map(jnp.asarray, found))
    if not evaluation.is_rate_given(config, set_, rate):
        config.evaluate.learning_rate = set_.learning_rate
    set_ = dataclasses.replace(set_, learning_rate=config.evaluate.learning_rate)
    with mesh.use_devices(config.mesh.devices):
        return Accuracy(evaluation.distilled(config, parts, set_, "evaluate", display))


def _of_sets(sets, test, given, display) -> Accuracy:
    """Evaluates the images of several sets together, normalized by their own constants."""
    check_acting(given, ON_SET)
    with located("train"):
        images, targets, classes = union(sets, parameterizations.rendered)
    with located("test"):
        tested = from_arrays(*test, ())
        places = {name: place for place, name in enumerate(classes)}
        if unknown := sorted(set(tested.class_names) - places.keys()):
            raise UsageError(f"expected classes among {some(list(classes))}, got {some(unknown)}")
        check_frames(test[0], "images", frames := sets[0].format.frames)
        check_shape(tested.image_shape, images.shape[1:], frames)
    there = np.array([places[name] for name in tested.class_names], np.int32)
    stored = np.rint(255 * images.clip(0, 1)).astype(np.uint8)
    labels = targets if targets.ndim == 1 else targets.argmax(1).astype(np.int32)
    mean, std = channel_mean_std(stored, frames)
    dataset = data.Dataset(
        "sets", data.Split(stored, labels),
        data.Split(tested.train.images, there[tested.train.labels]), len(classes), classes,
        mean, std, fingerprint="", frames=frames,
    )  # fmt: skip
    most = -(-len(labels) // len(classes))  # epochs follow from it
    rate = min(float(of.learning_rate) for of in sets)
    size = {"budget.images_per_class": most, "evaluate.rates": "", "evaluate.learning_rate": rate}
    config = config_of(own(), size | given, dataset)
    parts = evaluation.parts_of(config, dataset)
    with mesh.use_devices(config.mesh.devices):
        of_images = jnp.asarray(images), targets, "evaluate", display
        return Accuracy(evaluation.of_images(config, parts, *of_images))


def fields_of(
    config: Mapping[str, Any] | ConfigDict | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns fields by dotted name, from both ways to give them, each once."""
    given = {}
    for group, values in (*_plain(config or {}).items(), *fields.items()):
        for name, value in dotted({group: _plain(values)}).items():
            if name in given:
                raise UsageError(f"config.{name}: expected it once, got it twice")
            given[name] = value
    numbers = {name for name, of in known().items() if of.type == "float"}
    return {n: float(v) if n in numbers and type(v) is int else v for n, v in given.items()}


def _plain(value: Any) -> Any:
    """Returns a value of plain types: dict, text for a path, and Python's numbers."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {name: _plain(of) for name, of in value.items()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value


def base_of(objective: str | None, given: Mapping[str, Any]) -> ConfigDict:
    """Returns the config of an objective, by default that of `own`, that fields are `given` to.

    Raises UsageError for an unknown one, and if the fields name one, too.
    """
    _check_once(given, "objective", objective, "matching.name")
    return own("dm" if objective is None else objective)


def _check_once(given: Mapping[str, Any], argument: str, value: Any, *fields: str) -> None:
    """Raises UsageError if a field is given that an argument sets, too."""
    twice = [field for field in fields if field in given]
    if value is not None and twice:
        raise UsageError(f"{argument}, config.{twice[0]}: expected one of them, got both")


def config_of(base: ConfigDict, given: Mapping[str, Any], dataset: data.Dataset) -> ConfigDict:
    """Returns the config with fields by dotted name, adapted to a data set as by the commands."""
    config = merged(base, given)
    validate.structure(config)
    config = adapt.swapped(config, base, given)
    validate.every(config, automatic=True)
    shape, largest = dataset.image_shape, max(dataset.train_counts)
    suited = adapt.suited(config, shape, dataset.num_classes, largest, dataset.frames, given)
    return adapt.scaled(suited, given)


def merged(base: ConfigDict, given: Mapping[str, Any]) -> ConfigDict:
    """Returns the config with fields by dotted name; raises UsageError for a group's value."""
    values = dotted(base.to_dict())
    for name, value in given.items():
        if not isinstance(value, dict) and any(field.startswith(f"{name}.") for field in values):
            raise UsageError(
                f"config.{name}: expected fields by name, as {{'field': value}}, got "
                f"{reprlib.repr(value)}"
            )
        if not isinstance(values.get(group := name.rpartition(".")[0], {}), dict):
            raise UsageError(f"config.{name}: no such field; config.{group} is no group")
    return unflat(values | given)


@contextlib.contextmanager
def _directory(workdir: str | os.PathLike | None) -> Iterator[pathlib.Path]:
    """Yields the directory of a run; one of its own is removed afterwards."""
    if workdir is not None:
        check_path(workdir)
        yield pathlib.Path(workdir).expanduser()
        return
    # An interrupted checkpoint may still be written.
    with tempfile.TemporaryDirectory(prefix="gsdd-", ignore_cleanup_errors=True) as folder:
        yield pathlib.Path(folder)


def display_of(verbose: bool) -> Display:
    return Display(None if verbose else io.StringIO())
