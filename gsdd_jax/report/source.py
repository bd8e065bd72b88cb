"""Work directories, read as far as possible, with a sentence for each missing part."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from gsdd_jax.config import validate
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_object
from gsdd_jax.core.trees import dotted
from gsdd_jax.figures import convergence, inputs
from gsdd_jax.figures.ellipses import spread
from gsdd_jax.formats import file as files
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.report import events
from gsdd_jax.runs import evaluation, real_images
from gsdd_jax.setup import experiment
from gsdd_jax.storage.workdir import EVALUATIONS, are_counts, are_percentages, snapshots

ARMS = ("distilled", "best", *experiment.BASELINES)
MOST_STEPS = 11  # of the images, evenly spaced, with the first and the last


@dataclasses.dataclass(frozen=True)
class Run:
    """Content of a work directory.

    Attributes:
      name: name for the reader.
      result: content of `result.json`; before the run has ended, the accuracies so far.
      records: content of `evaluations.json`.
      events: content of the event files.
      sets: sets by step of the distillation; the last is the distilled one.
      real: real images that the run's images started from, by class; None if not kept.
      missing: a sentence per missing or incomplete part: "result", "records", "events", "sets",
        "snapshots", "real".
    """

    name: str
    config: dict[str, Any]
    result: dict[str, Any]
    records: dict[str, Any]
    events: events.Events
    sets: dict[int, DistilledSet]
    real: UInt8[np.ndarray, "k n h w c"] | None
    missing: dict[str, str]

    @property
    def last(self) -> DistilledSet | None:
        """Distilled set, or the newest one."""
        return self.sets[max(self.sets)] if self.sets else None

    @property
    def provenance(self) -> dict[str, Any]:
        """Provenance of the distilled set."""
        found = self.result.get("provenance")
        if not isinstance(found, dict):
            found = self.last.provenance if self.last else {}
        return found

    def setting(self, field: str) -> Any | None:
        """Returns a number of the config; None if missing or invalid."""
        try:
            validate.value(field, self.config.get(field))
        except UsageError:
            return None
        return self.config.get(field)

    @property
    def strongest(self) -> str | None:
        """Arm of real images with the highest accuracy, or None."""
        valid = {}
        for arm in ARMS:
            if values := self.accuracies(arm):
                valid |= evaluation.summary(arm, values)
        return experiment.strongest(valid)

    def accuracies(self, arm: str | None, by: str = "accuracies") -> list[float] | None:
        """Returns the accuracy of each network (or `by_class`: on the test images of each class),
        in percent; None if the arm was not evaluated."""
        values = self.result.get(f"{arm}_{by}")
        return values if are_percentages(values) else None

    def confusion(self, arm: str) -> Int[np.ndarray, "k k"] | None:
        """Returns the counts [class, predicted class] of test images over all networks, or None."""
        counts = self.result.get(f"{arm}_confusion")
        return np.array(counts) if are_counts(counts) else None

    def class_name(self, label: int) -> str:
        """Returns the class name in the distilled set, or "class" and the label."""
        names = (self.last and self.last.class_names) or ()
        name = names[label] if label < len(names) else str(label)
        return f"class {name}" if name.isdigit() else name


def read(path: str | os.PathLike, name: str) -> Run:
    """Reads the run in a work directory, or raises UsageError; opens no file outside of it."""
    path = pathlib.Path(path)
    if not (path / "config.json").is_file():
        raise UsageError(f"{path}: expected a run's work directory, with its config.json")
    config = dotted(read_object(path / "config.json", "a run's config"))
    missing: dict[str, str] = {}
    say = lambda piece: _noting(missing, piece)
    records, result = {}, {}
    with say("records"):
        records = _records(path)
    with say("result"):
        result = _result(path, records)
    if not (path / "result.json").exists():
        missing["result"] = "There is no result.json: the run has not ended."
    found = events.read(path / "tensorboard")
    if not found.scalars:
        missing["events"] = "No numbers in TensorBoard event files."
    sets = {}
    with say("sets"):
        last = _newest(path)
        with say("snapshots"):
            sets = _on_the_way(path, last)
        sets[inputs.step_of(last)] = last
    real = None
    with say("real"):
        real = _real(path, sets)
    return Run(name, config, result, records, found, dict(sorted(sets.items())), real, missing)


def read_all(paths: list[str | os.PathLike]) -> list[Run]:
    """Reads several directories, each once; names are the last parts of their paths."""
    paths = list(dict.fromkeys(pathlib.Path(p) for p in paths))
    names = inputs.names_of([path.absolute() for path in paths])
    if len(set(names)) < len(names):
        names = list(map(str, paths))
    return [read(path, name) for path, name in zip(paths, names, strict=True)]


@contextlib.contextmanager
def _noting(missing: dict[str, str], piece: str) -> Iterator[None]:
    """Records a UsageError as a sentence in `missing`."""
    try:
        yield
    except UsageError as error:
        text = str(error)
        missing[piece] = text[:1].upper() + text[1:].rstrip(".") + "."


def _records(path: pathlib.Path) -> dict[str, Any]:
    file = path / EVALUATIONS
    if not file.exists():
        raise UsageError(f"there is no {file.name}: nothing was evaluated yet")
    return convergence.records(path)


def _result(path: pathlib.Path, records: Mapping[str, Any]) -> dict[str, Any]:
    file = path / "result.json"
    if file.exists():
        return read_object(file, "a run's result")
    found = {}
    for arm in ARMS:
        if arm in records:
            found |= evaluation.summary(arm, records[arm]["test"])
            found |= evaluation.by_class(arm, np.asarray(records[arm]["confusion"]))
    return found


def _newest(path: pathlib.Path) -> DistilledSet:
    """Returns the distilled set, or the newest set of an unfinished run or a fit."""
    candidates = [path / files.NAME, *reversed(snapshots(path).values())]
    candidates += [path / "best.safetensors", path / "fitted.safetensors"]
    for file in candidates:
        if file.exists():
            return files.load(file)
    raise UsageError("no images yet: the run has neither ended nor left a snapshot")


def _on_the_way(path: pathlib.Path, last: DistilledSet) -> dict[int, DistilledSet]:
    kept = snapshots(path)
    if not kept:
        raise UsageError(
            "no snapshots; --config.distill.snapshot_every=N saves the images every N steps"
        )
    like = lambda s: (s.format.image_shape, len(s.labels))
    sets = {step: files.load(kept[step]) for step in spread(list(kept), MOST_STEPS)}
    return {step: set_ for step, set_ in sets.items() if like(set_) == like(last)}


def _real(path, sets):
    images = real_images.read(path)
    for set_ in sets.values():
        classes = set_.num_classes
        if (len(images), *images.shape[2:]) != (classes, *set_.format.image_shape):
            raise UsageError(f"{path / real_images.NAME}: not of the images of this run")
    return images
