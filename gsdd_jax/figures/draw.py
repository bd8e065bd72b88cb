"""What the figures share: their look, and files whose bytes depend on nothing but the numbers."""

from __future__ import annotations

import contextlib
import csv
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gsdd_jax.core.files import check_ours, open_regular, write_atomically
from gsdd_jax.figures.geometry import Ellipses

COLUMN, PAGE = 3.4, 6.9  # inches: a column's width, and two
# Okabe and Ito's colours, which the colour-blind tell apart; markers tell them apart in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GREY = "#8C8C8C"
MARK = "gsdd-jax figure"  # in the metadata of every picture
FIGURE = "figure"  # the first column of every CSV: its own name
_HEAD = 1 << 14  # bytes of a file, its mark among them
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 240,
    "svg.hashsalt": "gsdd-jax",  # else ids, and so the bytes, would differ from run to run
}


@contextlib.contextmanager
def sheet(width: float, height: float) -> Iterator[Any]:
    """An empty figure of so many inches in the common style, to be saved before this ends."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what a reader's own file of settings says
        matplotlib.rcParams.update(_STYLE)
        yield Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, out: pathlib.Path, name: str) -> None:
    """Writes NAME.png and NAME.svg."""
    for kind, metadata in (("png", {"Software": MARK}), ("svg", {"Date": None, "Creator": MARK})):
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
        write(out / f"{name}.{kind}", content.getvalue())


def frame(figure: Any, scale: float = 1.5) -> np.ndarray:
    """The figure as 8-bit pixels [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(100 * scale)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def table(out: pathlib.Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes NAME.csv: a line of names, then a line a row; numbers to seven digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [FIGURE, *rows[0].keys()], lineterminator="\n")
    writer.writeheader()
    shown = lambda v: f"{v:.7g}" if isinstance(v, (float, np.floating)) else v
    for row in rows:
        writer.writerow({FIGURE: name} | {field: shown(value) for field, value in row.items()})
    write(out / f"{name}.csv", text.getvalue().encode())


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes a file of a figure. Raises UsageError as `check_place`."""
    check_place(path)
    write_atomically(path, content)


def check_place(path: pathlib.Path) -> None:
    """Raises UsageError where a file cannot be written, or would replace what is of no figure."""
    check_ours(path, "a file of an earlier figure", _is_of_a_figure)


def _is_of_a_figure(path: pathlib.Path) -> bool:
    with open_regular(path, "a file of a figure") as file:
        head = file.read(_HEAD)
    if path.suffix == ".csv":
        return head.startswith(f"{FIGURE},".encode()) and f"\n{path.stem},".encode() in head
    return MARK.encode() in head


def look(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th of several lines."""
    return dict(color=COLORS[i % len(COLORS)], marker=MARKERS[i % len(MARKERS)])


def image(axes: Any, pixels: Float[np.ndarray, "h w c"]) -> None:
    """An image in [0, 1], clipped for show, every pixel a square; coordinates are its pixels."""
    height, width, channels = pixels.shape
    shown = np.clip(np.nan_to_num(pixels), 0, 1)
    shown = shown if channels == 3 else shown[..., :1].repeat(3, -1)
    axes.imshow(shown, interpolation="nearest", extent=(0, width, height, 0))
    bare(axes)


def bare(axes: Any) -> None:
    """Without ticks and grid, with a thin frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color=GREY)


def outlines(
    axes: Any,
    ellipses: Ellipses,
    colors: Float[np.ndarray, "n c"],
    opacities: Float[np.ndarray, "n"],
    size: tuple[int, int],
) -> None:
    """Gaussians of an image of `size` (height, width): 1-sigma outlines, more or less opaque; none
    of opacity 0."""
    from matplotlib.patches import Ellipse

    rgb = np.clip(colors if colors.shape[1] == 3 else colors[:, :1].repeat(3, -1), 0, 1)
    alpha = np.clip(opacities, 0.08, 1)  # the least visible is still seen
    drawn = (a[opacities != 0] for a in (*ellipses, rgb, alpha))
    for centre, (long, short), angle, color, a in zip(*drawn, strict=True):
        shape = dict(xy=centre, width=2 * long, height=2 * short, angle=angle)
        axes.add_patch(Ellipse(**shape, facecolor=(*color, 0.25 * a), edgecolor=(*color, a)))
    height, width = size
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", facecolor="#F4F4F4")
    bare(axes)
