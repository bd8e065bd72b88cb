"""Tables of accuracies by arm, run and class, and confusion matrices."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gsdd_jax.figures.convergence import SAME
from gsdd_jax.formats.base import is_unequal
from gsdd_jax.report.curves import COLORS, ticks
from gsdd_jax.report.source import ARMS, Run
from gsdd_jax.report.tables import described
from gsdd_jax.runs import evaluation

# Arm -> name, description and color.
NAMES = {
    "distilled": ("Distilled", "after the last step", 0),
    "best": ("Best step", "step {}, chosen on training images", 0),
    "fitted": ("Only fitted", "before distillation", 2),
    "random_real": ("Random real images", "in float32, same bytes", 1),
    "random_real_uint8": ("Random real images", "in 8 bits, four times as many", 1),
    "random_real_dct": ("Random real images", "compressed as in JPEG, same bytes", 1),
    "random_real_dct_soft": ("Random real images", "compressed, with a teacher's soft labels", 1),
    "random_real_dct_labeler": ("Random real images", "compressed, with a labeler of each view", 1),
    "all_real": ("All real images", "as a teacher is trained", 1),
}
# Field of a compressed arm -> its text.
CHOSEN = {
    "images_per_class": ", {:,} per class",
    "side": " at {:,} pixels",
    "temperature": ", temperature {:,}",
    "mixes": ", {:,} mixtures of each",
    "bits": ", {:,} bits",
}
WHOLE = 20  # classes up to which the confusion matrix is shown
PAIRS = 10  # most frequent confusions, listed for more classes
# Name, note, numbers, drawn (mean, deviation, values, color), further cells.
Row = tuple[str, str, list[str], list[tuple], list[str]]


def arms(run: Run) -> dict[str, Any]:
    """Returns a table of a run's arms that have accuracies, and the numbers of networks."""
    values = {arm: found for arm in ARMS if (found := run.accuracies(arm))}
    if values.get("best") == values.get("distilled"):
        values.pop("best", None)  # the same set
    strongest = run.strongest
    unequal = run.last is not None and is_unequal(run.last.class_counts)
    rows, reference, whole = [], values.get(strongest), values.get("all_real")
    for arm, found in values.items():
        name, note, color = NAMES[arm]
        note, more = note.format(run.result.get("best_step")), []
        for chosen, text in CHOSEN.items():
            value = run.result.get(f"{arm}_{chosen}")
            if type(value) in (int, float) and value:
                note += text.format(value)
                note += " on average" * (unequal and chosen == "images_per_class")
        if reference:
            gain = np.mean(found) - np.mean(reference)
            more = [f"{gain:+.1f}" if arm != strongest else ""]
        if whole:
            more.append(f"{100 * np.mean(found) / np.mean(whole):.0f} %")
        rows.append(_row(name, note, found, color, more))
    heads = ["training images", "test accuracy"]
    more = ["gain over best real images"] if reference else []
    table = _table(heads, rows, more + (["of all real images"] if whole else []))
    return table | {"networks": sorted({len(found) for found in values.values()})}


def together(runs: Sequence[Run]) -> tuple[dict[str, Any], list[str]]:
    """Returns a table of runs with an accuracy, and the fields that make them incomparable."""
    rows = []
    for i, run in enumerate(runs):
        if values := run.accuracies("distilled"):
            others = [run.accuracies(arm) for arm in ("fitted", run.strongest)]
            more = [evaluation.shown(found) if found else "–" for found in others]
            rows.append(_row(run.name, described(run), values, i % COLORS, more))
    different = [f for f in SAME if len({str(run.config.get(f)) for run in runs}) > 1]
    return _table(["run", "test accuracy"], rows, ["only fitted", "best real images"]), different


def by_class(run: Run) -> dict[str, Any]:
    """Returns a table with a row per class, with the best real images if both are known."""
    of = {"distilled": "distilled", "random real": run.strongest}
    arms = {name: run.accuracies(arm, "by_class") for name, arm in of.items()}
    if len(arms["random real"] or []) != len(arms["distilled"] or []):
        del arms["random real"]
    rows = []
    for label, values in enumerate(zip(*(found or [] for found in arms.values()), strict=True)):
        dots = [(value, 0.0, [], color) for color, value in enumerate(values)]
        rows.append((run.class_name(label), "", [f"{value:.1f} %" for value in values], dots, []))
    return _table(["class", *arms], rows, ends=(0.0, 100.0))


def confusion(run: Run) -> dict[str, Any] | None:
    """Returns the confusion matrix for the distilled set in percent, and its largest errors."""
    counts = run.confusion("distilled")
    if counts is None:
        return None
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [run.class_name(label) for label in range(len(counts))]
    wrong = np.where(np.eye(len(names), dtype=bool), 0.0, shares)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = zip(*np.unravel_index(largest, wrong.shape), strict=True)
    return {
        "names": names,
        "rows": np.stack([counts, shares], -1).tolist() if len(names) <= WHOLE else [],
        "pairs": [[names[i], names[j], f"{wrong[i, j]:.1f} %"] for i, j in pairs],
    }


def _row(name: str, note: str, values: Sequence[float], color: int, more: list[str]) -> Row:
    found = evaluation.summary("", values)
    dots = (found["_accuracy"], found["_std"], values, color)
    return name, note, [evaluation.shown(values)], [dots], more


def _table(heads: list[str], rows: list[Row], more: Sequence[str] = (), ends=()) -> dict[str, Any]:
    """Returns rows with a common scale, with a margin around the values."""
    drawn = [dots for *_, of_row, _ in rows for dots in of_row]
    found = [v for mean, s, values, _ in drawn for v in (mean - s, mean + s, *values)] or [0, 100]
    margin = 0.08 * (max(found) - min(found)) or 1.0
    low, high = ends or (max(min(found) - margin, 0.0), min(max(found) + margin, 100.0))
    marks = [tick for tick in ticks().tick_values(low, high).tolist() if low <= tick <= high]
    return dict(heads=heads, rows=rows, more=more, low=low, high=high, ticks=marks)
