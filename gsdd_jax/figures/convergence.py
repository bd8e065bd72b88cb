"""Test accuracy against steps of several runs at the same bytes (Figure 3b)."""

from __future__ import annotations

import operator
import os
import pathlib
from collections.abc import Sequence

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_object
from gsdd_jax.figures import draw, inputs

NAME = "convergence"
BEFORE, STEP, LAST = "fitted", "step ", "distilled"  # names in a run's evaluations
SAME = ("data.name", "data.subset", "data.resolution", "budget.ipc")


def main(workdirs: Sequence[str | os.PathLike], out: pathlib.Path) -> None:
    """Draws a line and a band of one standard deviation over networks per work directory.

    Raises UsageError for a directory without evaluations, or runs with other data or budgets.
    """
    paths = [pathlib.Path(w) for w in workdirs]
    configs = [inputs.config_of(path, None) for path in paths]
    with inputs.building_from("--workdir"):
        compared = [list(operator.attrgetter(*SAME)(config)) for config in configs]
        for path, values in zip(paths, compared, strict=True):
            for field, value, first in zip(SAME, values, compared[0], strict=True):
                if value != first:
                    raise UsageError(
                        f"{path} has config.{field}={value!r}, {paths[0]} has {first!r}; expected "
                        "runs on the same data at the same bytes"
                    )
        kinds = [config.parameterization.name for config in configs]
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
    """Returns (step, test accuracy per network) of a run, in order; step 0 is the fit.

    Raises UsageError if nothing was evaluated, or the file is invalid.
    """
    path = workdir / "evaluations.json"
    records = read_object(path, "a run's evaluations")
    found = {}
    try:
        for name, record in records.items():
            if name == BEFORE:
                found[0] = [float(a) for a in record["test"]]
            elif name == LAST or name.startswith(STEP):
                found[int(record["step"])] = [float(a) for a in record["test"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: {name!r} is no evaluation ({error!r})") from None
    if not found:
        raise UsageError(f"{path}: no evaluations yet; expected a run that has ended")
    return sorted(found.items())
