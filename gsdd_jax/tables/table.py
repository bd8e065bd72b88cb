"""Tables of a paper as cells with a config each; their results as Markdown, CSV and JSON."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_atomically, write_json
from gsdd_jax.setup.cost import Cost

LONG = 60  # characters of a piece's state; longer ones are footnotes


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
      row, column: position in the table.
      config: the experiment; each of `seeds` replaces its seed.
      arm: training images: "distilled", or one of `experiment.REAL`, random real images, without
        distillation.
      trials: fields by dotted name, tried with the first seed; other seeds take the trial with the
        best accuracy on real training images.
      seeds: of the whole pipeline.
      steps: of class-incremental learning with a replay memory (`runs.continual`); 0: none.
      evaluation: arguments of `evaluation.evaluate_file` that differ from the run's own evaluation;
        empty: the run's own.
      value: name of the accuracies in the evaluation's result.
      published: the paper's number, in percent.
    """

    row: str
    column: str
    config: ConfigDict = dataclasses.field(compare=False)
    arm: str = "distilled"
    trials: tuple[Mapping[str, Any], ...] = ({},)
    seeds: tuple[int, ...] = (0,)
    steps: int = 0
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    value: str = "distilled_accuracies"
    published: float | None = None

    def variant(self, trial: Mapping[str, Any], seed: int) -> ConfigDict:
        config = self.config.copy_and_resolve_references()
        seeds = {f"{of}.seed": config[of].seed + seed for of in ("experts", "teacher")}
        seeds["seed"] = seed
        config.update_from_flattened_dict({**trial, **seeds})
        return config


@dataclasses.dataclass(frozen=True)
class Mean:
    """Mean over some rows of a column, compared with the published mean."""

    row: str
    column: str
    of: tuple[str, ...]
    published: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells by row and column, and their requirements.

    Attributes:
      name: with the size.
      title: one line for the reader.
      cells: in order of running.
      needs_gpu: whether CPUs are too slow to run it.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    means: tuple[Mean, ...] = ()
    needs_gpu: bool = False

    def part(
        self, rows: Sequence[str] = (), columns: Sequence[str] = (), seeds: int = 0
    ) -> tuple[Cell, ...]:
        """Returns the cells of some rows and columns, with their first seeds; none given: all.

        Raises UsageError for a row, a column, cells or seeds that the table does not have.
        """
        most = max(len(cell.seeds) for cell in self.cells)
        if not 0 <= seeds <= most:
            raise UsageError(f"seeds: expected 0 (all) to {most}, got {seeds}")
        for what, given, known in (
            ("row", rows, {cell.row: None for cell in self.cells}),
            ("column", columns, {cell.column: None for cell in self.cells}),
        ):
            for name in given:
                if name not in known:
                    raise UsageError(f"{what}: expected one of {list(known)}, got {name!r}")
        found = tuple(
            dataclasses.replace(cell, seeds=cell.seeds[: seeds or None])
            for cell in self.cells
            if cell.row in (rows or (cell.row,)) and cell.column in (columns or (cell.column,))
        )
        if not found:
            there = list(dict.fromkeys(cell.column for cell in self.cells if cell.row in rows))
            raise UsageError(
                f"column: expected one that the rows {', '.join(rows)} have ({'; '.join(there)}), "
                f"got {'; '.join(columns)}"
            )
        return found


@dataclasses.dataclass(frozen=True)
class Found:
    """Result of a cell so far.

    Attributes:
      accuracies: accuracy of each network in percent, by finished seed.
      chosen: the best trial, or None while trials are unfinished.
      trials: (settings, accuracy on real training images or None, reason for None).
      reason: why the number is missing or incomplete.
    """

    accuracies: Mapping[int, list[float]] = dataclasses.field(default_factory=dict)
    chosen: Mapping[str, Any] | None = None
    trials: tuple[tuple[Mapping[str, Any], float | None, str], ...] = ()
    reason: str = ""

    @property
    def mean(self) -> float | None:
        """Mean over seeds of the networks' mean, in percent; None without accuracies."""
        if not self.accuracies:
            return None
        return float(np.mean([np.mean(a) for a in self.accuracies.values()]))

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the seeds' means; with one seed, of its networks."""
        means = [float(np.mean(a)) for a in self.accuracies.values()]
        if len(means) == 1:
            means = next(iter(self.accuracies.values()))
        return float(np.std(means, ddof=1)) if len(means) > 1 else None


def write(table: Table, found: list[Found], directory: pathlib.Path) -> None:
    """Writes `<name>.md`, `.csv` and `.json`: our number, the published one and the difference."""
    path, plain = directory / table.name, _plain(table, found)
    write_json(path.with_suffix(".json"), plain)
    write_atomically(path.with_suffix(".csv"), _csv(plain).encode())
    write_atomically(path.with_suffix(".md"), markdown(table, found).encode())


def markdown(table: Table, found: list[Found]) -> str:
    """Returns the table as text, followed by its trials and the reasons for missing numbers."""
    cells = list(zip(table.cells, found, strict=True))
    at = {(c.row, c.column): _text(f.mean, f.deviation, c.published) for c, f in cells}
    for mean, value in _means(table, found):
        at[mean.row, mean.column] = _text(value, None, mean.published)
    rows = list(dict.fromkeys(row for row, _ in at))
    columns = list(dict.fromkeys(column for _, column in at))
    lines = [f"# {table.title}", "", "Test accuracy, percent; published and difference behind it."]
    lines += ["", "| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for row in rows:
        texts = (at.get((row, column), "") for column in columns)
        lines.append(f"| {row} | " + " | ".join(texts) + " |")
    # Runs that cells share, and reasons, are listed once.
    if tried := _grouped((_tried(f), f"{c.row}, {c.column}") for c, f in cells if c.trials[1:]):
        lines += ["", "Trials, by accuracy on real training images:", ""]
    for text, (first, *more) in tried.items():
        others = f" (and {len(more)} more of the same)" if more else ""
        lines.append(f"- {first}{others}: {text}")
    if missing := _grouped((f.reason, f"{c.row} ({c.column})") for c, f in cells if f.reason):
        lines += ["", "Not run:", ""]
    lines += [f"- {', '.join(places)}: {reason}" for reason, places in missing.items()]
    return "\n".join(lines) + "\n"


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Returns the places of each text, from pairs of both."""
    found: dict[str, list[str]] = {}
    for text, place in pairs:
        found.setdefault(text, []).append(place)
    return found


def _tried(found: Found) -> str:
    return "; ".join(
        f"{', '.join(f'{name}={value:g}' for name, value in trial.items()) or 'as configured'}: "
        f"{why if accuracy is None else f'{accuracy:.1f}'}{' (taken)' * (trial == found.chosen)}"
        for trial, accuracy, why in found.trials
    )


def listed(pieces: Sequence[tuple[str, str, Cost | None]]) -> str:
    """Returns a line per (name, state, cost), with long states as shared footnotes."""
    lines, total, notes = [f"{'hours':>8} {'GiB':>6}  piece"], 0.0, {}
    for name, state, cost in pieces:
        hours, size = (cost.seconds / 3600, cost.bytes / 2**30) if cost else (0.0, 0.0)
        total += hours if state != "done" else 0.0
        if len(state) > LONG:
            state = f"no, ({notes.setdefault(state, len(notes) + 1)})"
        lines.append(f"{hours:8.2f} {size:6.1f}  {name}: {state}")
    lines.append(f"{total:8.2f} hours on this machine for what is not done, {len(pieces)} pieces")
    lines += [f"({number}) {state.removeprefix('no: ')}" for state, number in notes.items()]
    return "\n".join(lines) + "\n"


def _text(mean: float | None, deviation: float | None, published: float | None) -> str:
    ours = "–" if mean is None else f"{mean:.1f}"
    if deviation is not None:
        ours += f" ± {deviation:.1f}"
    if published is None:
        return ours
    return f"{ours} ({published:.1f}{'' if mean is None else f', {mean - published:+.1f}'})"


def _means(table: Table, found: list[Found]) -> list[tuple[Mean, float | None]]:
    values = {(c.row, c.column): f.mean for c, f in zip(table.cells, found, strict=True)}
    means = []
    for mean in table.means:
        of = [values[row, mean.column] for row in mean.of]
        means.append((mean, None if None in of else float(np.mean(of))))
    return means


def _csv(plain: dict[str, Any]) -> str:
    fields = ("row", "column", "mean", "deviation", "seeds", "published", "difference", "reason")
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for cell in plain["cells"]:
        writer.writerow(cell | {"seeds": len(cell["accuracies"])})
    for mean in plain["means"]:
        writer.writerow({field: mean[field] for field in fields[:3]})
    return out.getvalue()


def _plain(table: Table, found: list[Found]) -> dict[str, Any]:
    cells = [
        dict(
            row=cell.row, column=cell.column, mean=f.mean, deviation=f.deviation,
            accuracies={str(seed): a for seed, a in f.accuracies.items()},
            published=cell.published, difference=_difference(cell, f),
            trials=[dict(settings=dict(t), train_accuracy=a, reason=why) for t, a, why in f.trials],
            chosen=None if f.chosen is None else dict(f.chosen), evaluation=dict(cell.evaluation),
            reason=f.reason, config=json.loads(cell.config.to_json()),
        )
        for cell, f in zip(table.cells, found, strict=True)
    ]  # fmt: skip
    means = [{**dataclasses.asdict(mean), "mean": value} for mean, value in _means(table, found)]
    return {"name": table.name, "title": table.title, "cells": cells, "means": means}


def _difference(cell, found) -> float | None:
    if found.mean is None or cell.published is None:
        return None
    return found.mean - cell.published
