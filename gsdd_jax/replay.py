"""Replay memory of continual learning: distilled sets of what was seen, within fixed bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int32
from ml_collections import ConfigDict

from gsdd_jax import parameterizations
from gsdd_jax.arrays import (
    Accuracy,
    base_of,
    config_of,
    evaluate,
    fields_of,
    merged,
    of_dataset,
)
from gsdd_jax.config import validate
from gsdd_jax.core import interrupts
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, counted, located
from gsdd_jax.core.fields import check_value
from gsdd_jax.core.files import check_path, make_folder, read_object, write_json
from gsdd_jax.data.arrays import from_arrays, texts
from gsdd_jax.data.items import some
from gsdd_jax.formats import file
from gsdd_jax.formats.clips import check_shape
from gsdd_jax.formats.distilled import Arrays, DistilledSet, batches
from gsdd_jax.formats.labeler import LABELER
from gsdd_jax.formats.parts import subset
from gsdd_jax.formats.union import classes_of, union
from gsdd_jax.setup.provenance import ON_SET

FORMAT = "gsdd-jax replay memory 1"
INDEX = "memory.json"
BUDGETS = ("bytes", "bytes_per_class")
_SET = re.compile(r"[0-9a-f]{32}\.safetensors")  # named by its content
_NEW = "new.safetensors"  # until its content is known
_MOST = 10_000  # sets of a memory


class Memory:
    """Distilled images of all classes seen so far, for replay in continual learning.

    Every `add` distills the images that it is given. Earlier sets are not distilled again: with a
    fixed number of `bytes` they give up their last images.

    Attributes:
      sets: distilled set of each `add`; some are cut.
      classes: names of the classes, in the order of their arrival.
      bytes, bytes_per_class: the budget; one of them is None.
    """

    @checked
    def __init__(
        self,
        bytes: int | None = None,
        *,
        bytes_per_class: int | None = None,
        objective: str | None = None,
        workdir: str | os.PathLike | None = None,
        verbose: bool = False,
        config: Mapping[str, Any] | ConfigDict | None = None,
        **fields: Any,
    ):
        """Makes an empty memory.

        Args:
          bytes: bytes of all images and soft labels together. Classes of all calls of `add` have
            equal shares; a class of several calls has one in each. Without labeled mixtures,
            which a set loses when it gives up images.
          bytes_per_class: in place of `bytes`: those of each class, which it keeps.
          objective, config, fields: see `gsdd_jax.distill`. Nothing is evaluated.
          workdir: directory for the runs, one for each `add`. The same calls in the same order
            resume an interrupted one. None: nothing is kept.
          verbose: whether to show the progress on standard output.

        Raises UsageError unless exactly one budget is given, and for invalid arguments.
        """
        given = {"bytes": bytes, "bytes_per_class": bytes_per_class}
        _check_budget(given)
        self.sets: tuple[DistilledSet, ...] = ()
        self.bytes, self.bytes_per_class = bytes, bytes_per_class
        self._given = fields_of(config, fields)
        for field in ("budget.bytes", "budget.ipc", "data.classes"):
            if field in self._given:
                raise UsageError(f"config.{field}: expected none, which a memory sets itself")
        self._base = base_of(objective, self._given)
        validate.structure(merged(self._base, self._given))
        if bytes is not None:
            if self._given.get("labels.mixes"):
                raise UsageError(
                    "config.labels.mixes: expected 0 in a fixed number of bytes, got "
                    f"{self._given['labels.mixes']}: a set that gives up images loses its mixtures"
                )
            self._base.labels.mixes = 0
        if merged(self._base, self._given).labels.source == LABELER:
            raise UsageError(
                f"config.labels.source: expected class or teacher, got {LABELER}, which knows only "
                "the classes of one call of add"
            )
        if workdir is not None:
            check_path(workdir)
        self._workdir, self._verbose = workdir, verbose

    @property
    def classes(self) -> tuple[str, ...]:
        return classes_of(self.sets)

    @property
    def num_bytes(self) -> int:
        """Bytes of all images and soft labels."""
        return sum(of.num_bytes for of in self.sets)

    def __repr__(self) -> str:
        """Returns one line: number of images and classes, bytes and budget."""
        images = counted(sum(len(of.labels) for of in self.sets), "image")
        budget = f"{self.bytes}" if self.bytes else f"{self.bytes_per_class} per class"
        return (
            f"Memory({images} of {counted(len(self.classes), 'class')}; {self.num_bytes} bytes "
            f"of {budget})"
        )

    @checked
    @interrupts.delayed()
    def add(self, images: Any, labels: Any) -> None:
        """Distills images into the memory; takes minutes on a CPU.

        Without an error the memory holds them, otherwise it is as before.

        Args:
          images, labels: as for `gsdd_jax.data.from_arrays`: of new classes, or of known ones.

        Raises UsageError for invalid arrays, images of another size than before, and a budget that
        does not hold one image of every class; like `gsdd_jax.distill`.
        """
        number = len(self.sets)
        dataset = from_arrays(images, labels, (), name=self._given.get("data.name", "replay"))
        if dataset.frames > 1:
            raise UsageError("images: expected images, got clips, which a memory does not take")
        if self.sets and dataset.image_shape != self.sets[0].format.image_shape:
            raise UsageError(
                f"images: expected {self.sets[0].format.image_shape}, as in the memory, got "
                f"{dataset.image_shape}"
            )
        parts = sum(of.num_classes for of in (*self.sets, dataset))
        share = self.bytes_per_class or self.bytes // parts
        if share < 1:
            raise UsageError(
                f"bytes: expected at least {parts} for {counted(parts, 'class')}, got {self.bytes}"
            )
        kept = []
        for place, of in enumerate(self.sets):
            of = dataclasses.replace(of, source=f"set {place + 1}")  # which messages name
            with located(f"bytes: {share} for each of {parts} classes"):
                kept.append(dataclasses.replace(subset(of, bytes_per_class=share), source=""))
        own = {"data.name": dataset.name, "budget.bytes": share}
        config = config_of(self._base, own | self._given, dataset)
        workdir = self._workdir and pathlib.Path(self._workdir, f"{number:03d}")
        self.sets = (*kept, of_dataset(dataset, config, workdir, self._verbose))

    @checked
    def numpy(self, *, clip: bool = False) -> Arrays:
        """Returns all images in [0, 1], float32 [m, h, w, c], and targets.

        Targets are indices into `classes` [m], or with soft labels probabilities of these [m, k].

        Args:
          clip: whether images are clipped to [0, 1], which they exceed a little.

        Raises UsageError for an empty memory.
        """
        images, targets, _ = union(self._some(), parameterizations.images)
        return Arrays(np.clip(images, 0, 1) if clip else images, targets)

    @checked
    def batches(
        self, batch_size: int, *, seed: int = 0, epochs: int = 1, clip: bool = False
    ) -> Iterator[Arrays]:
        """Returns batches of `epochs` passes, each in a new order, of what `numpy` returns."""
        return batches(lambda: self.numpy(clip=clip), batch_size, seed, epochs)

    def indices(self, labels: Any) -> Int32[np.ndarray, "n"]:
        """Returns the indices into `classes` of labels as `add` takes them.

        Raises UsageError for a class that the memory does not have.
        """
        self._some()
        names = texts(labels, "labels")
        places = {name: place for place, name in enumerate(self.classes)}
        if unknown := sorted(set(names) - places.keys()):
            raise UsageError(
                f"labels: expected classes of the memory, {some(list(places))}, got {some(unknown)}"
            )
        return np.array([places[name] for name in names], np.int32)

    def evaluate(
        self,
        test_images: Any,
        test_labels: Any,
        *,
        learning_rate: float | None = None,
        verbose: bool = False,
        config: Mapping[str, Any] | ConfigDict | None = None,
        **fields: Any,
    ) -> Accuracy:
        """Trains fresh networks on the memory and tests them, as `gsdd_jax.evaluate` does.

        Args:
          test_images, test_labels: images of the memory's classes, labeled as for `add`.
          learning_rate: learning rate of the networks; None: that of the config.
          verbose, config, fields: see `gsdd_jax.evaluate`, of a distilled set. Fields that the
            memory was made with apply, too.

        Raises UsageError for invalid arguments, an empty memory, and if a network diverges.
        """
        given = fields_of(config, fields)
        own = {n: v for n, v in self._given.items() if n.startswith(ON_SET)}
        return evaluate(
            self._some(), test_images, test_labels, learning_rate=learning_rate, verbose=verbose,
            config=own | given,
        )  # fmt: skip

    @checked
    def save(self, path: str | os.PathLike) -> None:
        """Writes the memory into a folder, or replaces one that was saved there.

        Sets are written before the index that names them: a crash leaves the old memory or the new
        one.

        Raises UsageError for an empty memory, a folder of other content, and if it cannot be
        written.
        """
        self._some()
        folder = pathlib.Path(path).expanduser()
        make_folder(folder)
        before = []
        if (folder / INDEX).exists():
            before = _index(folder)["sets"]
        elif not all(_is_ours(path) for path in folder.iterdir()):
            raise UsageError(f"{folder}: expected a new folder, or one of a saved memory")
        budget = {name: getattr(self, name) for name in BUDGETS}
        try:
            names = [_save(folder, of) for of in self.sets]
            write_json(folder / INDEX, {"format": FORMAT, "sets": names, **budget})
            for name in set(before) - set(names):
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot write ({error.strerror})") from None

    def _some(self) -> tuple[DistilledSet, ...]:
        """Returns the sets; raises UsageError if there are none."""
        if not self.sets:
            raise UsageError("memory: expected images, got none; add some first")
        return self.sets


@checked
def load(
    path: str | os.PathLike,
    *,
    objective: str | None = None,
    workdir: str | os.PathLike | None = None,
    verbose: bool = False,
    config: Mapping[str, Any] | ConfigDict | None = None,
    **fields: Any,
) -> Memory:
    """Loads a memory from a folder that `Memory.save` wrote.

    Args:
      objective, workdir, verbose, config, fields: of further calls of `add`, as for `Memory`; they
        are not in the folder.

    Raises UsageError for a folder that holds no memory, or a damaged one.
    """
    check_path(path)
    for name in BUDGETS:
        if name in fields:
            raise UsageError(f"{name}: expected none, since the folder has it")
    folder = pathlib.Path(path).expanduser()
    index = _index(folder)
    budget = {name: index[name] for name in BUDGETS}
    of_runs = dict(objective=objective, workdir=workdir, verbose=verbose, config=config)
    memory = Memory(**budget, **of_runs, **fields)
    sets = tuple(file.load(folder / name) for name in index["sets"])
    for name, of in zip(index["sets"], sets, strict=True):
        with located(folder / name):
            classes_of([of])
            check_shape(of.format.image_shape, sets[0].format.image_shape)
    memory.sets = sets
    parts = sum(of.num_classes for of in sets)
    most = memory.bytes if memory.bytes else memory.bytes_per_class * parts
    if memory.num_bytes > most:
        raise UsageError(f"{folder}: expected at most {most} bytes, got {memory.num_bytes}")
    return memory


def _check_budget(given: Mapping[str, Any]) -> None:
    """Raises UsageError unless one of `BUDGETS` is a positive integer, and the other None."""
    there = {name: value for name, value in given.items() if value is not None}
    if len(there) != 1:
        got = "both" if there else "none"
        raise UsageError(f"{', '.join(BUDGETS)}: expected one of them, got {got}")
    for name, value in there.items():
        check_value(name, "int", value, (1, None))


def _is_ours(path: pathlib.Path) -> bool:
    """Returns whether an interrupted first save left a file."""
    return path.is_file() and (path.name == _NEW or bool(_SET.fullmatch(path.name)))


def _save(folder: pathlib.Path, of: DistilledSet) -> str:
    """Writes a set under a name by its content; returns the name."""
    new = folder / _NEW
    file.save(new, of)
    name = f"{hashlib.sha256(new.read_bytes()).hexdigest()[:32]}.safetensors"
    new.replace(folder / name)
    return name


def _index(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the checked index of a saved memory."""
    path = folder / INDEX
    index = read_object(path, "a replay memory")
    with located(path):
        if index.get("format") != FORMAT:
            raise UsageError(f"expected the format {FORMAT!r}")
        if unknown := sorted(index.keys() - {"format", "sets", *BUDGETS}):
            raise UsageError(f"unknown field {unknown[0]!r}")
        names = index.get("sets")
        right = isinstance(names, list) and 1 <= len(names) <= _MOST
        right = right and all(isinstance(n, str) and _SET.fullmatch(n) for n in names)
        if not right or len(set(names)) < len(names):
            raise UsageError("sets: expected different names of sets in the folder")
        _check_budget({name: index.get(name) for name in BUDGETS})
    return {"sets": names, **{name: index.get(name) for name in BUDGETS}}
