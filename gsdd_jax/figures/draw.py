"""Common style of the figures, and files whose bytes depend only on the numbers."""

import contextlib
import csv
import io
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gsdd_jax.core.files import check_ours, open_regular, write_atomically
from gsdd_jax.figures.geometry import Ellipses

COLUMN, PAGE = 3.4, 6.9  # inches: widths of one column and of two
# Okabe and Ito's colors, distinct for the color-blind; markers are distinct in gray.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GRAY = "#8C8C8C"
MARK = "gsdd-jax figure"  # in the metadata of every picture
FIGURE = "figure"  # the first column of every CSV: its own name
_HEAD = 1 << 14  # bytes of a file that include its mark
_STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
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
    "svg.hashsalt": "gsdd-jax",  # otherwise ids, and so bytes, differ between runs
}


@contextlib.contextmanager
def sheet(
    out: pathlib.Path, name: str, rows: list[dict], width: float, height: float, tight: bool = False
) -> Iterator[Any]:
    """Writes NAME.csv, yields an empty figure of that size in inches, and writes its pictures.

    `tight` leaves little room between images.
    """
    table(out, name, rows)
    with styled(width, height) as figure:
        yield figure
        if tight:
            figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        for kind, about in (("png", {"Software": MARK}), ("svg", {"Date": None, "Creator": MARK})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, metadata=about)
            write(out / f"{name}.{kind}", content.getvalue())


@contextlib.contextmanager
def styled(width: float, height: float) -> Iterator[Any]:
    """Yields an empty figure of that size in inches in the common style, to be rendered inside."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignores the user's matplotlibrc
        matplotlib.rcParams.update(_STYLE)
        yield Figure(figsize=(width, height), layout="constrained")


def frame(figure: Any, scale: float = 1.5) -> np.ndarray:
    """Returns the figure as 8-bit pixels [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(100 * scale)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def table(out: pathlib.Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes NAME.csv: a header, then one line per row; numbers to seven digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [FIGURE, *rows[0].keys()], lineterminator="\n")
    writer.writeheader()
    shown = lambda v: f"{v:.7g}" if isinstance(v, (float, np.floating)) else v
    for row in rows:
        writer.writerow({FIGURE: name} | {field: shown(value) for field, value in row.items()})
    write(out / f"{name}.csv", text.getvalue().encode())


def write(path: pathlib.Path, content: bytes) -> None:
    """Writes a file of a figure. Raises UsageError like `check_place`."""
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


def plain(name: str) -> str:
    """Returns a name to be drawn as it is: between dollars matplotlib reads mathematics."""
    return name.replace("$", r"\$")


def look(i: int) -> dict[str, Any]:
    marker = MARKERS[(i + i // len(COLORS)) % len(MARKERS)]  # other pairs once colors repeat
    return dict(color=COLORS[i % len(COLORS)], marker=marker)


def accuracies(
    axes: Any, rows: list[dict], field: str, x: Callable, names: dict | None = None, bars: float = 0
) -> None:
    """Draws a line of accuracy per value of `field`, with deviations as bands, or as bars of a
    width."""
    for i, value in enumerate(dict.fromkeys(row[field] for row in rows)):
        label = names[value] if names else plain(value)
        mine = [row for row in rows if row[field] == value]
        at = [x(row) for row in mine]
        mean, std = (np.array([row[key] for row in mine]) for key in ("accuracy", "std"))
        if bars:
            axes.errorbar(at, mean, std, label=label, capsize=2, elinewidth=bars, **look(i))
        else:
            axes.plot(at, mean, label=label, **look(i))
            axes.fill_between(at, mean - std, mean + std, color=COLORS[i], alpha=0.18, lw=0)
    axes.set_ylabel("test accuracy, %")


def image(axes: Any, pixels: Float[np.ndarray, "h w c"]) -> None:
    """Draws an image in [0, 1], clipped, with square pixels; coordinates are its pixels."""
    height, width, channels = pixels.shape
    shown = np.clip(np.nan_to_num(pixels), 0, 1)
    shown = shown if channels == 3 else shown[..., :1].repeat(3, -1)
    axes.imshow(shown, interpolation="nearest", extent=(0, width, height, 0))
    bare(axes)


def bare(axes: Any) -> None:
    """Removes ticks and grid, and draws a thin frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color=GRAY)


def outlines(
    axes: Any,
    ellipses: Ellipses,
    colors: Float[np.ndarray, "n c"],
    opacities: Float[np.ndarray, "n"],
    size: tuple[int, int],
) -> None:
    """Draws Gaussians of an image of `size` (height, width) as 1-sigma outlines, by opacity."""
    from matplotlib.patches import Ellipse

    rgb = np.clip(colors if colors.shape[1] == 3 else colors[:, :1].repeat(3, -1), 0, 1)
    alpha = np.clip(opacities, 0.08, 1)  # keep the faintest visible
    drawn = (a[opacities != 0] for a in (*ellipses, rgb, alpha))
    for center, (long, short), angle, color, a in zip(*drawn, strict=True):
        shape = dict(xy=center, width=2 * long, height=2 * short, angle=angle)
        axes.add_patch(Ellipse(**shape, facecolor=(*color, 0.25 * a), edgecolor=(*color, a)))
    height, width = size
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", facecolor="#F4F4F4")
    bare(axes)
