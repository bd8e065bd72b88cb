"""Test accuracy against steps of several runs at the same bytes (Figure 3b)."""

import operator
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_object
from gsdd_jax.figures import draw, inputs
from gsdd_jax.storage.workdir import EVALUATIONS, evaluations

NAME = "convergence"
BEFORE, STEP, LAST = "fitted", "step ", "distilled"  # names in a run's evaluations
SAME = ("data.name", "data.subset", "data.resolution", "budget.ipc")


def main(workdirs: Sequence[str | os.PathLike], out: pathlib.Path) -> None:
    """Draws a line and a band of one standard deviation over networks per work directory.

    Raises UsageError for a directory without evaluations, or runs with other data or budgets.
    """
    paths = [pathlib.Path(w) for w in workdirs]
    configs = [inputs.config_of(path, None) for path in paths]
    with inputs.building_from(paths[0]):
        expected = operator.attrgetter(*SAME)(configs[0])
    kinds = []
    for path, config in zip(paths, configs, strict=True):
        with inputs.building_from(path):
            kinds.append(config.parameterization.name)
            found = operator.attrgetter(*SAME)(config)
        for field, value, first in zip(SAME, found, expected, strict=True):
            if value != first:
                raise UsageError(
                    f"{path}: config.{field} is {value!r}, and {first!r} in {paths[0]}; expected "
                    "runs on the same data at the same bytes"
                )
    labels = inputs.labels_of(kinds, paths)
    rows = [
        dict(run=label, step=step, networks=len(accuracies)) | inputs.accuracy(accuracies)
        for path, label in zip(paths, labels, strict=True)
        for step, accuracies in curve(path)
    ]
    with draw.sheet(out, NAME, rows, draw.COLUMN, 2.4) as figure:
        axes = figure.subplots()
        draw.accuracies(axes, rows, "run", lambda row: row["step"])
        axes.set_xlabel("distillation step")
        axes.legend()


def curve(workdir: pathlib.Path) -> list[tuple[int, list[float]]]:
    """Returns (step, test accuracy per network) of a run. Raises UsageError without evaluations."""
    if found := by_step(records(workdir)):
        return found
    raise UsageError(f"{workdir}: no evaluations yet; expected those of a run that has ended")


def records(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns a run's evaluations by name. Raises UsageError if missing or invalid."""
    kept = read_object(workdir / EVALUATIONS, "a run's evaluations")
    return evaluations(workdir, kept.get("identity"))


def by_step(records: dict[str, Any], split: str = "test") -> list[tuple[int, list[float]]]:
    """Returns (step, accuracy per network) of `records`, in order; step 0 is the fit."""
    found = {}
    for name, record in records.items():
        step = 0 if name == BEFORE else record.get("step")
        if (name in (BEFORE, LAST) or name.startswith(STEP)) and split in record:
            found[step] = record[split]
    return sorted((step, values) for step, values in found.items() if step is not None)
