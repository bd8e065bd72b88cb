"""Several runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from gsdd_jax.figures.convergence import SAME
from gsdd_jax.page import accuracy, curves, settings
from gsdd_jax.page.accuracy import Row
from gsdd_jax.page.charts import COLORS
from gsdd_jax.page.markup import Markup, element
from gsdd_jax.page.source import Run

OTHERS = ("fitted", "random_real")


def sections(runs: Sequence[Run]) -> list[tuple[str, list[Markup | None]]]:
    """(heading, content) of each: results, curves, configs."""
    return [
        ("Results", _results(runs)),
        ("Curves", curves.section(runs)),
        ("Differences of the configs", [settings.differences(runs)]),
    ]


def _results(runs: Sequence[Run]) -> list[Markup | None]:
    rows, without = [], []
    for i, run in enumerate(runs):
        values = run.accuracies("distilled")
        if not values:
            without.append(run)
            continue
        head = element("span", run.name, element("small", described(run)))
        others = [run.accuracies(arm) for arm in OTHERS]
        more = [accuracy.shown(v) if v else "–" for v in others]
        rows.append(Row(head, values, i % COLORS, more))
    parts = []
    if rows:
        heads = [accuracy.NAMES[arm][0].lower() for arm in OTHERS]
        parts.append(accuracy.on_one_scale("run", rows, heads))
    if different := [f for f in SAME if len({str(run.config.get(f)) for run in runs}) > 1]:
        text = (
            f"The runs differ in {', '.join(different)}: they are not on the same data at the same "
            "bytes, and their accuracies do not compare."
        )
        parts.append(element("p", text, class_="note"))
    parts += [element("p", f"{run.name}: no accuracy yet.", class_="note") for run in without]
    return parts


def described(run: Run) -> str:
    """One line: what is stored how, in how many bytes."""
    set_ = run.last
    if set_ is None:
        return "no images yet"
    kind = set_.format
    height, width, channels = kind.image_shape
    classes = len(set_.labels) // kind.images_per_class
    data = run.provenance.get("data")
    name = data.get("name") if isinstance(data, dict) else run.config.get("data.name")
    return (
        f"{name} {height}×{width}×{channels}, {classes} classes: {kind.images_per_class:,} images "
        f"a class as {kind.name}, {set_.num_bytes // classes:,} bytes a class"
    )
