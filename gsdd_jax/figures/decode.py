"""Time and memory of decoding against bytes, resolution and batch, with peers (Figure 5).

Measurements come from the caller, as rows of `sweep` ("bytes", "resolution", "batch", or "storage"
for whole sets of every parameterization), `value`, `what` (the decoder), `measured` ("forward" or
"both"), `seconds` per call and `peak_bytes` of the compiled program: its arguments, results and
temporaries.
"""

import pathlib
from typing import Any

from gsdd_jax.figures import draw

NAME = "decode"
XLABELS = {
    "bytes": "bytes per image",
    "resolution": "pixels per side",
    "batch": "images",
    "storage": "bytes per class of a set",
}
PASSES = {"forward": ("", "-"), "both": (", with gradient", "--")}
FEW = 6  # names that a legend of two columns shows well


def main(rows: list[dict[str, Any]], out: pathlib.Path) -> None:
    """Draws measured rows: time above, memory below."""
    sweeps = list(dict.fromkeys(row["sweep"] for row in rows))
    names = list(dict.fromkeys(row["what"] for row in rows))
    scales = {"seconds": (1e3, "time, ms"), "peak_bytes": (2**-20, "memory, MiB")}
    columns = 2 if len(names) <= FEW else 4
    width = max(draw.COLUMN if columns == 2 else draw.PAGE, draw.PAGE * len(sweeps) / 3)
    height = 3.8 + (0 if columns == 2 else 0.07 * len(names))  # of the legend's lines
    with draw.sheet(out, NAME, rows, width, height) as figure:
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
                x = sorted({r["value"] for r in rows if r["sweep"] == sweep})
                axes.set_xticks(x, labels=[f"{v:g}" for v in x])
                axes.xaxis.minorticks_off()
            axes_row[0].set_ylabel(label)
        for axes, sweep in zip(grid[-1], sweeps, strict=True):
            axes.set_xlabel(XLABELS[sweep])
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=columns
        )
