"""Accuracy of federated learning against the bytes that clients and server sent."""

import os
import pathlib
from typing import Any

from gsdd_jax.figures import draw, inputs

NAME = "federated"
_MOST = 10**15  # bytes


def main(path: str | os.PathLike, out: pathlib.Path) -> None:
    """Draws the results that the app in `examples/federated` wrote to `path`, a JSON file.

    A panel per split of the images; a dashed line for what is trained without sending anything.
    """
    rows = inputs.cells(path, NAME, _described)
    splits = list(dict.fromkeys(row["split"] for row in rows))
    named = {name: i for i, name in enumerate(dict.fromkeys(row["method"] for row in rows))}
    with draw.sheet(out, NAME, rows, draw.PAGE, 2.6) as figure:
        panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
        found = {}
        for axes, split in zip(panels, splits, strict=True):
            mine = [row for row in rows if row["split"] == split]
            for method in dict.fromkeys(row["method"] for row in mine):
                points = [row for row in mine if row["method"] == method]
                look = draw.look(named[method])
                if points[-1]["bytes"]:
                    points.sort(key=lambda row: row["bytes"])
                    of = [[row[key] for row in points] for key in ("bytes", "accuracy", "std")]
                    line = axes.errorbar(*of, capsize=2, elinewidth=0.8, **look)
                else:
                    level = points[-1]["accuracy"]
                    line = axes.axhline(level, color=look["color"], linestyle="--")
                found.setdefault(draw.plain(method), line)
            axes.set(title=draw.plain(split), xlabel="bytes sent")
            if any(row["bytes"] for row in mine):
                axes.set_xscale("log")
        panels[0].set_ylabel("test accuracy, %")
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=3)


def _described(cell: dict[str, Any]) -> dict[str, Any]:
    sent = cell["bytes"]
    if type(sent) is not int or not 0 <= sent <= _MOST:
        raise ValueError(f"expected a number of bytes, got {sent!r}")
    return {"method": cell["row"], "split": cell["column"], "bytes": sent}
