"""Charts as inline SVG, in the colours of style.css; what a pointer or a key asks for is in them as
data, for script.js to show."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gsdd_jax.page.markup import Markup, element

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 26, 42
COLORS = 6  # of style.css; further lines take them again, dashed otherwise
MOST_POINTS = 500  # of a line; of more, evenly chosen ones are drawn
LOGARITHMIC = 30.0  # a positive range of so many times and more has a logarithmic axis


Number = int | float


class Line(NamedTuple):
    """A line of a chart: (x, y, deviation of y or 0) in the order of x."""

    name: str
    points: Sequence[tuple[Number, Number, Number]]
    color: int = 0


class Level(NamedTuple):
    """A horizontal line to compare with."""

    name: str
    value: Number


class Dots(NamedTuple):
    """What is drawn in a cell of a table."""

    values: Sequence[Number]
    mean: Number
    deviation: Number
    color: int


class Scale(NamedTuple):
    """From values to coordinates."""

    low: Number
    high: Number
    start: Number
    end: Number
    logarithmic: bool = False

    def __call__(self, value: Number) -> float:
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def lines(
    title: str,
    x_label: str,
    y_label: str,
    given: Sequence[Line],
    levels: Sequence[Level] = (),
    legend: bool = False,
) -> Markup:
    """A figure with its title and a legend, for a single line only where that is asked for."""
    given = [line._replace(points=_thinned(line.points)) for line in given]
    x, y = _scales(given, levels)
    parts = [*_axes(x, y, x_label, y_label)]
    for level in levels:
        at = _short(y(level.value))
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="level"))
    for line in given:
        parts += _line(line, x, y)
    data = {
        "x": x_label,
        "scale": x[:4],
        "between": [TOP, HEIGHT - BOTTOM],
        "points": [
            [i, round(x(a), 1), round(y(b), 1), _value(a), _value(b), f"{s:.2g}" if s else ""]
            for i, line in enumerate(given)
            for a, b, s in line.points
        ],
        "names": [line.name for line in given],
    }
    drawing = element(
        "svg", *parts, class_="chart", role="img", tabindex=0, viewBox=f"0 0 {WIDTH} {HEIGHT}",
        aria_label=f"{title}: {_described(given)}", data_chart=json.dumps(data),
    )  # fmt: skip
    head = element("figcaption", element("h3", title), _legend(given, levels, legend))
    return element("figure", head, drawing)


def dots(given: Sequence[Dots], scale: tuple[Number, Number], about: int = 4) -> Markup:
    """A cell of a table: of each of `given` the mean with its deviation, and the values as faint
    dots; on a scale with about so many ticks from the cell's left end to its right."""
    low, high = scale
    at = lambda v: f"{_short(100 * (v - low) / (high - low))}%"
    parts = [element("line", x1="0", x2="100%", y1="50%", y2="50%", class_="track")]
    for tick in ticks(low, high, about):
        parts.append(element("line", x1=at(tick), x2=at(tick), y1="0", y2="100%", class_="grid"))
    for values, mean, deviation, color in given:
        for value in values:
            parts.append(element("circle", cx=at(value), cy="50%", r=2.5, class_=f"one c{color}"))
        if deviation:
            left, right = at(max(low, mean - deviation)), at(min(high, mean + deviation))
            whisker = dict(x1=left, x2=right, y1="50%", y2="50%", class_=f"whisker c{color}")
            parts.append(element("line", **whisker))
        parts.append(element("circle", cx=at(mean), cy="50%", r=5, class_=f"mean c{color}"))
    return element("svg", *parts, class_="dots", aria_hidden="true")


def dots_axis(scale: tuple[Number, Number], unit: str, about: int = 4) -> Markup:
    """The numbers below a column of `dots`."""
    low, high = scale
    labels = []
    for tick in ticks(low, high, about):
        left = _short(100 * (tick - low) / (high - low))
        labels.append(element("span", f"{_value(tick)}{unit}", style=f"left:{left}%"))
    return element("div", *labels, class_="dots-axis", aria_hidden="true")


def around(values: Sequence[Number]) -> tuple[Number, Number]:
    """A scale with some room on both sides."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def ticks(low: Number, high: Number, about: int) -> list[float]:
    """Round numbers from `low` to `high`, about so many."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _logarithmic_ticks(low: Number, high: Number) -> list[float]:
    """1, 2 and 5 of each power of ten; over many powers 1 alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(powers) <= 3 else (1,)
    every = max(1, len(powers) // 6)
    found = [d * 10.0**p for p in powers if p % every == 0 for d in digits]
    return [t for t in found if low <= t <= high]


def _scales(given, levels) -> tuple[Scale, Scale]:
    xs = [x for line in given for x, _, _ in line.points]
    ys = [v for line in given for _, y, s in line.points for v in (y - s, y + s)]
    ys += [level.value for level in levels]
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 1, right + 1
    low, high = min(ys), max(ys)
    logarithmic = low > 0 and high / low >= LOGARITHMIC
    if logarithmic:
        low, high = low / 1.2, high * 1.2
    else:
        low, high = around(ys)
        low = 0.0 if low < 0 <= min(ys) else low
    return (
        Scale(left, right, LEFT, WIDTH - RIGHT),
        Scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic),
    )


def _axes(x, y, x_label, y_label) -> list[Markup]:
    parts = []
    of_y = _logarithmic_ticks(y.low, y.high) if y.logarithmic else ticks(y.low, y.high, 4)
    for tick in of_y:
        at = _short(y(tick))
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(element("text", _value(tick), x=LEFT - 8, y=at, dy="0.34em", class_="end"))
    bottom = HEIGHT - BOTTOM
    for tick in ticks(x.low, x.high, 4):
        at = _short(x(tick))
        parts.append(element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(element("text", _value(tick), x=at, y=bottom + 17, class_="middle"))
    axis = dict(x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis")
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [
        *parts,
        element("line", **axis),
        element("text", x_label, x=_short(middle), y=HEIGHT - 6, class_="middle label"),
        element("text", y_label, x=0, y=12, class_="label"),
    ]


def _line(line, x, y) -> list[Markup]:
    look = f"c{line.color % COLORS}" + (" dashed" if line.color >= COLORS else "")
    at = lambda points: [f"{_short(x(a))},{_short(y(b))}" for a, b in points]
    parts = []
    if any(s for _, _, s in line.points):
        upper = [(a, min(b + s, y.high)) for a, b, s in line.points]
        lower = [(a, max(b - s, y.low)) for a, b, s in reversed(line.points)]
        parts.append(element("path", d=f"M{'L'.join(at(upper + lower))}Z", class_=f"band {look}"))
    middle = at([(a, b) for a, b, _ in line.points])
    if len(middle) > 1:
        parts.append(element("path", d=f"M{'L'.join(middle)}", class_=f"line {look}"))
    if len(middle) <= 12:
        parts += [
            element("circle", cx=_short(x(a)), cy=_short(y(b)), r=3, class_=f"mark {look}")
            for a, b, _ in line.points
        ]
    return parts


def _legend(given, levels, always) -> Markup | None:
    if len(given) + len(levels) < 2 and not always:
        return None
    entries = [
        element("li", element("span", class_=f"swatch c{line.color % COLORS}"), line.name)
        for line in given
    ]
    entries += [
        element(
            "li", element("span", class_="swatch level"), f"{level.name}, {_value(level.value)}"
        )
        for level in levels
    ]
    return element("ul", *entries, class_="legend")


def _described(given: Sequence[Line]) -> str:
    """For who does not see the chart."""
    ends = [
        f"{line.name} from {_value(line.points[0][1])} to {_value(line.points[-1][1])}"
        for line in given
    ]
    return "; ".join(ends)


def _thinned(points: Sequence) -> list:
    """At most so many, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]


def _value(value: Number) -> str:
    """For the reader: four digits; thousands in groups."""
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.3g}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"


_short: Callable[[Number], str] = lambda value: f"{value:.2f}".rstrip("0").rstrip(".")
