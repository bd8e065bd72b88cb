"""Accuracy of all classes so far, by step of class-incremental learning."""

import os
import pathlib
from typing import Any

from gsdd_jax.figures import draw, inputs

NAME = "continual"
_MOST = 1000  # steps


def main(path: str | os.PathLike, out: pathlib.Path) -> None:
    """Draws the table that `launch.reproduce --table=continual` wrote to `path`, a JSON file.

    A line per row, dashed where its memory is smaller; a panel per data set and number of steps.
    """
    rows = inputs.cells(path, NAME, _described)
    protocols = sorted({(row["data"], row["of"]) for row in rows})
    named = {name: i for i, name in enumerate(dict.fromkeys(row["stored"] for row in rows))}
    with draw.sheet(out, NAME, rows, draw.PAGE, 2.8) as figure:
        panels = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
        found = {}
        for axes, (data, length) in zip(panels, protocols, strict=True):
            mine = [row for row in rows if (row["data"], row["of"]) == (data, length)]
            for label in dict.fromkeys((row["stored"], row["memory"]) for row in mine):
                points = [row for row in mine if (row["stored"], row["memory"]) == label]
                of_points = ([row[key] for row in points] for key in ("step", "accuracy", "std"))
                style = "--" if label[1] else "-"
                line = axes.errorbar(
                    *of_points, linestyle=style, capsize=2, elinewidth=0.8,
                    **draw.look(named[label[0]]),
                )  # fmt: skip
                found.setdefault(draw.plain(", ".join(filter(None, label))), line)
            axes.set(xlabel=f"step of {length}", xticks=range(1, length + 1))
            axes.set_title(draw.plain(data))
        panels[0].set_ylabel("test accuracy on all classes so far, %")
        figure.legend(found.values(), found.keys(), loc="outside right center")


def _described(cell: dict[str, Any]) -> dict[str, Any]:
    stored, comma, rest = cell["row"].partition(", a tenth")
    data, _, place = cell["column"].rpartition(", ")
    _, step, _, of = place.split()
    if not 1 <= int(step) <= int(of) <= _MOST:
        raise ValueError(f"expected a step of at most {_MOST}, got {cell['column']}")
    if not place.startswith(f"step {step} of "):
        raise ValueError(f"expected a step of several, got {cell['column']}")
    memory = (comma + rest).removeprefix(", ")
    at = {"data": data, "step": int(step), "of": int(of)}
    return {"stored": stored, "memory": memory} | at
