"""Accuracy by bits per Gaussian and images per class, at equal bytes."""

import os
import pathlib
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import read_object
from gsdd_jax.figures import draw

NAME = "guidance"


def main(path: str | os.PathLike, out: pathlib.Path) -> None:
    """Draws the table that `launch.reproduce --table=guidance` wrote to `path`, a JSON file."""
    rows = read(path)
    with draw.sheet(out, NAME, rows, draw.COLUMN, 2.4) as figure:
        axes = figure.subplots()
        draw.accuracies(axes, rows, "bits", lambda row: row["images"], bars=0.8)
        images = sorted({row["images"] for row in rows})
        axes.set(xlabel="images per class in the same bytes", xscale="log")
        axes.set_xticks(images, labels=map(str, images))
        axes.minorticks_off()
        axes.legend()


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the finished cells. Raises UsageError for another file, or if there are none."""
    try:
        cells = read_object(path, "a table")["cells"]
        rows = [
            {
                "bits": cell["row"],
                "images": int(cell["column"].split()[0]),
                "accuracy": cell["mean"],
                "std": cell["deviation"] or 0.0,
            }
            for cell in cells
            if cell["mean"] is not None
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: expected the guidance table's JSON ({error!r})") from None
    if not rows:
        raise UsageError(f"{path}: no cell of this table was run")
    return rows
