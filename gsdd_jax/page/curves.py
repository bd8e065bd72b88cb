"""Accuracy, loss and whatever else runs wrote, over their steps; of several in the same charts."""

from __future__ import annotations

from collections.abc import Sequence

from gsdd_jax.figures.convergence import BEFORE, LAST, STEP
from gsdd_jax.page.charts import Level, Line, lines
from gsdd_jax.page.markup import Markup, element
from gsdd_jax.report.source import Run
from gsdd_jax.runs import assess

ON_THE_WAY = "distillation step"
# Of a tag: the title, what is on the axes.
TAGS = {
    "distill/loss": ("Objective", ON_THE_WAY, "loss, mean over each call"),
    "distill/learning_rate": ("Learning rate of the student", ON_THE_WAY, "learning rate"),
    "fit/psnr": ("Fit to real images", "step of the fit", "PSNR, dB"),
}
ACCURACY = "evaluate/accuracy"  # which the records have with their deviations


def section(runs: Sequence[Run]) -> list[Markup | None]:
    """A chart for each quantity that any of the runs has, and sentences for what is missing."""
    charts = [_accuracy(runs)]
    found = [tag for run in runs for tag in run.events.scalars if tag != ACCURACY]
    tags = dict.fromkeys([*TAGS, *found])
    for tag in tags:
        of_runs = [run.events.scalars.get(tag, []) for run in runs]
        drawn = [
            Line(run.name, [(step, value, 0) for step, value in points], i)
            for i, (run, points) in enumerate(zip(runs, of_runs, strict=True))
            if len(points) > 1
        ]
        if drawn:
            title, x_label, y_label = TAGS.get(tag, (tag, "step", tag.rpartition("/")[2]))
            charts.append(lines(title, x_label, y_label, drawn, legend=len(runs) > 1))
    charts = [chart for chart in charts if chart is not None]
    notes = [] if charts else [element("p", "Nothing was recorded more than once.", class_="note")]
    if all(len(accuracies(run)) < 2 and run.records for run in runs):
        text = (
            "Accuracy was measured only at the end; a run with --config.distill.eval_every=N "
            "measures it on the way."
        )
        notes.append(element("p", text, class_="note"))
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        for piece in ("records", "events"):
            if piece in run.missing:
                notes.append(element("p", of, run.missing[piece], class_="note"))
    return [element("div", *charts, class_="charts") if charts else None, *notes]


def accuracies(run: Run, split: str = "test") -> list[tuple[int, float, float]]:
    """(step, mean, deviation) of the networks' accuracies in percent, in the order of the steps;
    step 0 is what was fitted."""
    found = {}
    for name, record in run.records.items():
        step = 0 if name == BEFORE else record.get("step")
        if (name in (BEFORE, LAST) or name.startswith(STEP)) and split in record:
            summary = assess.summary(split, record[split])
            if 0 <= summary[f"{split}_accuracy"] <= 100:
                found[step] = (step, summary[f"{split}_accuracy"], summary[f"{split}_std"])
    return [found[step] for step in sorted(found)]


def _accuracy(runs: Sequence[Run]) -> Markup | None:
    levels = []
    if len(runs) == 1:
        (run,) = runs
        drawn = [Line("test images", accuracies(run))]
        drawn.append(Line("training images", accuracies(run, "train"), 1))
        real = run.accuracies("random_real")
        if real:
            level = assess.summary("real", real)["real_accuracy"]
            levels.append(Level("random real images at the same bytes", level))
    else:
        drawn = [Line(run.name, accuracies(run), i) for i, run in enumerate(runs)]
    drawn = [line for line in drawn if len(line.points) > 1]
    if not drawn:
        return None
    return lines("Accuracy", ON_THE_WAY, "accuracy, %", drawn, levels, legend=len(runs) > 1)
