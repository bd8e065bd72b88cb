"""Time and memory of decoding against bytes, resolution and batch, with peers (Figure 5).

Measurements come from the caller, as rows of `sweep` ("bytes", "resolution" or "batch"), `value`,
`what` (the decoder), `measured` ("forward" or "both"), `seconds` per call and `peak_bytes` of the
compiled program: its arguments, results and temporaries.
"""

from __future__ import annotations

import pathlib
from typing import Any

from gsdd_jax.figures import draw

NAME = "decode"
XLABELS = {
    "bytes": "bytes per image",
    "resolution": "pixels per side",
    "batch": "images",
}
PASSES = {"forward": ("", "-"), "both": (", with gradient", "--")}


def main(rows: list[dict[str, Any]], out: pathlib.Path) -> None:
    """Draws measured rows: time above, memory below."""
    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    names = list(dict.fromkeys(row["what"] for row in rows))
    scales = {"seconds": (1e3, "time, ms"), "peak_bytes": (2**-20, "memory, MiB")}
    with draw.sheet(out, NAME, rows, max(draw.COLUMN, draw.PAGE * len(sweeps) / 3), 3.8) as figure:
        grid = figure.subplots(2, len(sweeps), squeeze=False, sharex="col", sharey="row")
        for axes_row, (field, (scale, label)) in zip(grid, scales.items(), strict=True):
            for axes, sweep in zip(axes_row, sweeps, strict=True):
                for i, name in enumerate(names):
                    for measured, (meaning, dashes) in PASSES.items():
                        of = sweep, name, measured
                        mine = [r for r in rows if (r["sweep"], r["what"], r["measured"]) == of]
                        x = [r["value"] for r in mine]
                        y = [scale * r[field] for r in mine]
                        axes.plot(x, y, ls=dashes, label=name + meaning, **draw.look(i))
                axes.set(xscale="log", yscale="log")
                axes.set_xticks(x, labels=[f"{v:g}" for v in x])
                axes.xaxis.minorticks_off()
            axes_row[0].set_ylabel(label)
        for axes, sweep in zip(grid[-1], sweeps, strict=True):
            axes.set_xlabel(XLABELS[sweep])
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
