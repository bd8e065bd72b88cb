"""Accuracy against bytes per class, by how images are stored and labeled."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from gsdd_jax.figures import draw, inputs

NAME = "budgets"
PUBLISHED = "published: GSDD by TM, width 128"
_MOST = 10**12  # bytes


def main(path: str | os.PathLike, published: Mapping[int, float], out: pathlib.Path) -> None:
    """Draws the table that `launch.reproduce --table=budgets` wrote to `path`, a JSON file.

    `published` has further accuracies by bytes per class.
    """
    rows = inputs.cells(path, NAME, _described)
    for there, accuracy in published.items():
        more = {"stored": PUBLISHED, "bytes": there, "accuracy": accuracy, "std": math.nan}
        rows.append(more)
    rows.sort(key=lambda row: (row["stored"] == PUBLISHED, row["bytes"]))
    with draw.sheet(out, NAME, rows, draw.PAGE, 3.2) as figure:
        axes = figure.subplots()
        draw.accuracies(axes, rows, "stored", lambda row: row["bytes"], bars=0.8)
        ticks = sorted({row["bytes"] for row in rows})
        axes.set(xlabel="bytes per class", xscale="log")
        axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        figure.legend(loc="outside right center")


def _described(cell: dict[str, Any]) -> dict[str, Any]:
    there, _, unit = cell["column"].partition(" ")
    digits = there.replace(",", "")
    size = int(digits) if digits.isdecimal() and len(digits) <= len(str(_MOST)) else 0
    if unit != "bytes" or not 0 < size <= _MOST:
        raise ValueError(f"expected a number of bytes, got {cell['column']}")
    return {"stored": cell["row"], "bytes": size}
