"""Accuracies beside what they must beat, as numbers and on one scale; and by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gsdd_jax.page import confusion
from gsdd_jax.page.charts import Dots, around, dots, dots_axis
from gsdd_jax.page.markup import Markup, element, table
from gsdd_jax.page.source import ARMS, Run
from gsdd_jax.runs import assess

# What an arm is, and what it is made of.
NAMES = {
    "distilled": ("Distilled", "the set, after the last step"),
    "best": ("Best on the way", "on training images"),
    "fitted": ("Only fitted", "where distillation started"),
    "random_real": ("Random real images", "as float32, in the same bytes"),
    "random_real_uint8": ("Random real images", "as bytes, four times as many"),
}
COLORS = {"distilled": 0, "best": 0, "fitted": 2, "random_real": 1, "random_real_uint8": 1}
REFERENCE = "random_real"


class Row(NamedTuple):
    """One line of the table."""

    head: Markup
    values: Sequence[float]
    color: int
    more: Sequence[str | None]


def section(run: Run) -> list[Markup | None]:
    """The table of the arms, by class and what was taken for what where that is known, and
    sentences for what is missing."""
    notes = [run.missing["result"]] if "result" in run.missing else []
    arms = [arm for arm in ARMS if run.accuracies(arm) and not _is_the_last(run, arm)]
    if not arms:
        return [_note("No accuracies yet."), *map(_note, notes)]
    reference = run.accuracies(REFERENCE)
    rows = []
    for arm in arms:
        values = run.accuracies(arm)
        gain = None
        if reference and arm != REFERENCE:
            gain = f"{mean_of(values) - mean_of(reference):+.1f}"
        rows.append(Row(_head(run, arm), values, COLORS[arm], [gain]))
    heads = ["over random real"] if reference else []
    if not reference:
        rows = [row._replace(more=[]) for row in rows]
    parts = [on_one_scale("images that networks learn from", rows, heads)]
    networks = {len(run.accuracies(arm)) for arm in arms}
    count = str(networks.pop()) if len(networks) == 1 else "several"
    notes.append(
        f"Test accuracy of {count} networks trained on each: the mean, a standard deviation of a "
        "sample to both sides, and every network as a faint dot."
    )
    scale = run.setting("scale")
    if scale is not None and scale < 1:
        notes.append(
            f"The run is a shrunk copy, at scale {scale:g}: its accuracies say nothing about the "
            "experiment's."
        )
    return [*parts, *map(_note, notes), _by_class(run), confusion.details(run)]


def on_one_scale(what: str, rows: Sequence[Row], heads: Sequence[str]) -> Markup:
    """A table of accuracies in percent, each drawn beside its number; `heads` are of `Row.more`."""
    ends = []
    for row in rows:
        summary = assess.summary("", row.values)
        ends += [*row.values, summary["_accuracy"] - summary["_std"]]
        ends += [summary["_accuracy"] + summary["_std"]]
    low, high = around(ends)
    scale = max(low, 0.0), min(high, 100.0)
    if scale[0] >= scale[1]:
        scale = 0.0, 100.0
    body = []
    for row in rows:
        summary = assess.summary("", row.values)
        mean, deviation = summary["_accuracy"], summary["_std"]
        drawn = dots([Dots(row.values, mean, deviation, row.color)], scale)
        body.append([row.head, shown(row.values), drawn, *row.more])
    body.append([None, None, dots_axis(scale, " %"), *[None] * len(heads)])
    return table([what, "test accuracy", None, *heads], body, class_="accuracies")


def mean_of(values: Sequence[float]) -> float:
    """As a result has it."""
    return assess.summary("", values)["_accuracy"]


def shown(values: Sequence[float]) -> str:
    """The mean with its deviation, in percent."""
    summary = assess.summary("", values)
    return f"{summary['_accuracy']:.1f} ± {summary['_std']:.1f} %"


def _head(run: Run, arm: str) -> Markup:
    name, what = NAMES[arm]
    if arm == "best":
        what = f"step {run.result.get('best_step')}, chosen {what}"
    return element("span", name, element("small", what))


def _is_the_last(run: Run, arm: str) -> bool:
    """The best set is worth a line only where it is not the distilled one."""
    return arm == "best" and run.accuracies("best") == run.accuracies("distilled")


def _by_class(run: Run) -> Markup | None:
    distilled, real = run.by_class("distilled"), run.by_class(REFERENCE)
    if not distilled:
        return None
    if real and len(real) != len(distilled):
        real = None
    scale = 0.0, 100.0
    rows = []
    for label, value in enumerate(distilled):
        drawn = [Dots([], value, 0.0, 0)]
        cells = [run.class_name(label), f"{value:.1f} %"]
        if real:
            drawn.append(Dots([], real[label], 0.0, 1))
            cells.append(f"{real[label]:.1f} %")
        rows.append([*cells, dots(drawn, scale, about=2)])
    heads = ["class", "distilled"] + (["random real"] if real else []) + [None]
    axis = [None] * (len(heads) - 1) + [dots_axis(scale, " %", about=2)]
    content = table(heads, [*rows, axis], class_="accuracies by-class")
    return element("details", element("summary", "Accuracy by class"), content)


def _note(text: str) -> Markup:
    return element("p", text, class_="note")
