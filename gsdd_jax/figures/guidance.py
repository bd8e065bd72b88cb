"""Accuracy by bits per Gaussian and images per class, at equal bytes."""

import os
import pathlib

from gsdd_jax.figures import draw, inputs

NAME = "guidance"


def main(path: str | os.PathLike, out: pathlib.Path) -> None:
    """Draws the table that `launch.reproduce --table=guidance` wrote to `path`, a JSON file."""
    described = lambda cell: {"bits": cell["row"], "images": int(cell["column"].split()[0])}
    rows = inputs.cells(path, NAME, described)
    with draw.sheet(out, NAME, rows, draw.COLUMN, 2.4) as figure:
        axes = figure.subplots()
        draw.accuracies(axes, rows, "bits", lambda row: row["images"], bars=0.8)
        images = sorted({row["images"] for row in rows})
        axes.set(xlabel="images per class in the same bytes", xscale="log")
        axes.set_xticks(images, labels=map(str, images))
        axes.minorticks_off()
        axes.legend()
