"""Curves of accuracy, loss and other scalars over steps; several runs share charts."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from gsdd_jax.figures import draw
from gsdd_jax.figures.convergence import BEFORE, LAST, STEP
from gsdd_jax.report.source import Run
from gsdd_jax.runs import evaluation

WAY = "distillation step"
# Tag -> title and labels of the axes.
TAGS = {
    "distill/loss": ("Objective", WAY, "loss, mean over each call"),
    "distill/learning_rate": ("Learning rate of the student", WAY, "learning rate"),
    "fit/psnr": ("Fit to real images", "step of the fit", "PSNR, dB"),
}
ACCURACY = "evaluate/accuracy"  # not drawn: the records also have deviations
SIZE = np.array([420, 230])
COLORS = 6  # in style.css; further lines repeat them, dashed
MOST_POINTS = 500  # per line; longer lines are thinned evenly
LOGARITHMIC = 30.0  # ratio of positive values from which an axis is logarithmic
# Placeholder colors for variables of style.css, which differ between light and dark.
SOFT, PAGE = "#0000ca", "#0000cb"
VARIABLES = {"#000000": "track", "#e6e6e6": "rule", SOFT: "soft", PAGE: "page"}
VARIABLES |= {f"#0000c{i}": f"c{i}" for i in range(COLORS)}


class Line(NamedTuple):
    """Points (x, y, deviation of y or 0), ordered by x; the index selects color and dashes."""

    name: str
    points: Sequence[tuple[float, float, float]]
    index: int = 0


def section(runs: Sequence[Run], prefix: str) -> list[dict[str, Any]]:
    """Returns a chart per quantity that any run has; `prefix` makes ids unique in the page."""
    lines, levels = [Line(run.name, accuracies(run), i) for i, run in enumerate(runs)], {}
    if len(runs) == 1:
        lines = [lines[0]._replace(name="test images")]
        lines.append(Line("training images", accuracies(runs[0], "train"), 1))
        if real := runs[0].accuracies(runs[0].strongest):
            levels["the best real images at the same bytes"] = float(np.mean(real))
    charts = [_chart("Accuracy", WAY, "accuracy, %", lines, levels, prefix)]
    found = [tag for run in runs for tag in run.events.scalars if tag != ACCURACY]
    for i, tag in enumerate(dict.fromkeys([*TAGS, *found])):
        points = [[(x, y, 0) for x, y in run.events.scalars.get(tag, [])] for run in runs]
        lines = [Line(run.name, points[k], k) for k, run in enumerate(runs)]
        heads = TAGS.get(tag, (tag, "step", tag.rpartition("/")[2]))
        charts.append(_chart(*heads, lines, {}, f"{prefix}-{i}"))
    return [chart for chart in charts if chart]


def only_at_end(runs: Sequence[Run]) -> bool:
    """Returns whether runs were evaluated, but none has a curve of accuracies."""
    return all(len(accuracies(run)) < 2 and run.records for run in runs)


def accuracies(run: Run, split: str = "test") -> list[tuple[int, float, float]]:
    """Returns (step, mean, deviation) of networks' accuracies in percent, by step; 0: fitted."""
    found = {}
    for name, record in run.records.items():
        step = 0 if name == BEFORE else record.get("step")
        if (name in (BEFORE, LAST) or name.startswith(STEP)) and split in record:
            summary = evaluation.summary("", record[split])
            if 0 <= summary["_accuracy"] <= 100:
                found[step] = (step, summary["_accuracy"], summary["_std"])
    return [found[step] for step in sorted(found)]


def ticks(**settings: Any) -> Any:
    """Returns a locator of round numbers on an axis."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], **settings)


def shown(value: int | float, _: Any = None) -> str:
    """Formats a number with four digits and thousands separators."""
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.3g}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _chart(title, x_label, y_label, lines: Sequence[Line], levels, salt) -> dict[str, Any] | None:
    """Returns a drawing, its legend and strips for reading values; None without lines.

    Only numbers are drawn as text, because matplotlib parses formulas in other text.
    """
    import matplotlib

    lines = [_thinned(line) for line in lines if len(line.points) > 1]
    if not lines:
        return None
    with draw.styled(*SIZE / 72) as figure:
        matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 11}
        axes, content = figure.subplots(), io.StringIO()
        _plot(axes, lines, list(levels.values()))
        figure.savefig(content, format="svg", transparent=True)
        (left, bottom), (right, _) = axes.get_position().get_points() * SIZE
        low, high = axes.get_xlim()
    svg = re.search(r"<svg.*?>(.*)</svg>", content.getvalue(), re.DOTALL).group(1)
    svg = re.sub(r"<(metadata|style).*?</\1>| id=\"[\w.]+_\d+\"", "", svg, flags=re.DOTALL)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda color: f"var(--{VARIABLES[color.group()]})", svg)
    read: dict[float, list[str]] = {}
    for line in lines:
        for x, y, deviation in line.points:
            text = f"{line.name}: " if len(lines) > 1 else ""
            text += shown(y) + (f" ± {deviation:.2g}" if deviation else "")
            read.setdefault(x, []).append(text)
    places = np.array(sorted(read), float)
    edges = np.array([low, *(places[1:] + places[:-1]) / 2, high])
    edges = left + (edges - low) / (high - low) * (right - left)
    return {
        "title": title, "x_label": x_label, "y_label": y_label, "size": SIZE, "lines": lines,
        "levels": levels, "drawing": Markup(svg), "axis": [low, high, left, right],
        "strips": zip(edges[:-1], np.diff(edges), sorted(read.items()), strict=True),
        "bottom": SIZE[1] - bottom,
    }  # fmt: skip


def _thinned(line: Line) -> Line:
    chosen = np.linspace(0, len(line.points) - 1, min(len(line.points), MOST_POINTS))
    return line._replace(points=[line.points[i] for i in chosen.round().astype(int)])


def _plot(axes: Any, lines: Sequence[Line], levels: list[float]) -> None:
    from matplotlib.ticker import NullFormatter

    for line in lines:
        x, y, deviation = np.array(line.points, float).T
        look = dict(color=f"#0000c{line.index % COLORS}", clip_on=False)
        marks = dict(marker="o" if len(x) <= 12 else "", markersize=6, markeredgecolor=PAGE)
        axes.plot(x, y, "-" if line.index < COLORS else "--", linewidth=2, **look, **marks)
        if deviation.any():
            axes.fill_between(x, y - deviation, y + deviation, **look, alpha=0.16, linewidth=0)
    for level in levels:
        axes.axhline(level, color=SOFT, linestyle=":")
    axes.margins(x=0, y=0.08)
    ends = [y + side * s for line in lines for _, y, s in line.points for side in (-1, 1)] + levels
    if min(ends) > 0 and max(ends) / min(ends) >= LOGARITHMIC:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(ticks())
        if min(ends) >= 0:
            axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
    axes.xaxis.set_major_locator(ticks(integer=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(shown)
    axes.grid(axis="x", visible=False)
    axes.spines.left.set_visible(False)
    axes.tick_params(axis="y", which="both", length=0)
