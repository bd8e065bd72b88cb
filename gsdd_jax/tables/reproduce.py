"""Reproduces tables: runs each piece of every cell once, and resumes.

Cells share experts and fits of equal settings, and runs of equal configs. Several commands may work
on the same folder: each skips pieces in use by others. A command of several processes runs every
piece on all of them; the first process chooses the next piece.

    <root>/experts/, fits/    shared by the runs
    <root>/runs/<name>/       a work directory per run, like that of `launch.distill`
    <root>/continual/<name>/  a replay memory, with a run per step
    <root>/<table>.md         with .csv and .json; rewritten after each piece
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import matching
from gsdd_jax.core import devices, memory, processes
from gsdd_jax.core.errors import InUseError, UsageError, printable
from gsdd_jax.core.files import locked, read_object, write_json
from gsdd_jax.formats import file
from gsdd_jax.runs import baselines, continual, evaluation, experts, fits, teacher, trainings
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import OneLine
from gsdd_jax.setup import cost
from gsdd_jax.setup import experts as stored
from gsdd_jax.setup.components import of_labels
from gsdd_jax.setup.experiment import is_taught, needs_teacher
from gsdd_jax.storage.workdir import decisive, digest
from gsdd_jax.tables import table
from gsdd_jax.tables.table import Cell, Found, Table

WAIT = 10.0  # seconds between looks while all pieces left are in use


@dataclasses.dataclass(frozen=True)
class Piece:
    """Unit of work that is run once for all cells, and resumes by itself.

    Attributes:
      name: unique to what it makes.
      done: whether its result is on disk.
      needs: pieces to be done before it, unless it is done.
      result: file of its accuracies, if it has any.
    """

    name: str
    config: ConfigDict
    run: Callable[[OneLine], Any]
    cost: Callable[[], cost.Cost]
    done: Callable[[], bool]
    needs: tuple[Piece, ...] = ()
    result: pathlib.Path | None = None

    def in_order(self, whole: bool = False) -> Iterator[Piece]:
        """Yields the pieces that it needs on this disk (`whole`: on any), and itself."""
        if whole or not self.done():
            for need in self.needs:
                yield from need.in_order(whole)
        yield self

    def why_missing(self, reasons: Mapping[str, str]) -> str:
        """Returns why it has no result; `reasons` names pieces that were not run."""
        missing = (piece.name for piece in self.in_order() if not piece.done())
        return next((reasons[name] for name in missing if name in reasons), "")


def _shared(config: ConfigDict, group: str) -> Piece:
    """Returns the piece that fills the folder of a group of fields, which runs share."""
    what, run, estimate, is_there = {
        "experts": (
            f"{config.experts.num_experts} experts", experts.train_all, cost.of_experts,
            stored.are_there,
        ),
        "init": (
            f"fit {config.parameterization.name}", fits.fit_to_share, cost.of_fit, fits.is_there
        ),
        "teacher": ("teacher", teacher.train_to_share, cost.of_teacher, teacher.is_there),
    }[group]  # fmt: skip
    name = f"{what} {pathlib.Path(config[group].dir).name}"
    of = functools.partial
    return Piece(name, config, of(run, config), of(estimate, config), of(is_there, config))


def _run(config: ConfigDict, workdir: pathlib.Path) -> Piece:
    needed = {
        "experts": matching.find(config.matching.name).follows_experts,
        "teacher": is_taught(config),
        "init": config.init.images != "none" and config.init.num_steps,
    }
    needs = tuple(_shared(config, group) for group, is_needed in needed.items() if is_needed)
    run = lambda display: distill_to(config, workdir, display)
    estimate, result = functools.partial(cost.of_run, config), workdir / "result.json"
    return Piece(f"run {workdir.name}", config, run, estimate, result.exists, needs, result)


def _evaluation(
    config: ConfigDict, settings: Mapping[str, Any], result: pathlib.Path, of: Piece | None = None
) -> Piece:
    """Evaluation of a run's distilled set with other settings, or of real images without a run."""
    folder = result.parent
    arm = settings.get("arm", "")

    def evaluate(display):
        if of is not None:
            source = of.result.with_name(file.NAME)
            return evaluation.evaluate_file(source, display=display, baselines=False, **settings)
        return baselines.evaluate_real(config, arm, folder, display)

    def run(display):
        held = processes.held(lambda: locked(folder, f"{folder}: another process evaluates here"))
        with held, trainings.kept(folder / f"{result.stem}_trainings", display.line):
            accuracies = evaluate(display)
            if processes.first():
                write_json(result, accuracies)

    needs = (of,) if of is not None else (_shared(config, "teacher"),) * needs_teacher(arm)
    name = f"evaluation {(of.result.parent if of else folder).name}/{result.stem}"
    estimate = functools.partial(cost.of_evaluation, config, settings)
    return Piece(name, config, run, estimate, result.exists, needs, result)


def _continual(config: ConfigDict, steps: int, folder: pathlib.Path) -> Piece:
    """Class-incremental learning: runs of each step's classes, and the evaluations after each."""
    config = config.copy_and_resolve_references()
    config.init.dir = ""  # no two steps fit the same images
    run = lambda display: continual.continual_to(config, steps, folder, display)
    estimate, result = functools.partial(cost.of_continual, config, steps), folder / "result.json"
    return Piece(f"continual {folder.name}", config, run, estimate, result.exists, (), result)


class Folder:
    """Directory of tables' pieces, and the pieces of each cell."""

    def __init__(self, root: str | os.PathLike):
        self.root = pathlib.Path(root)

    def config(self, cell: Cell, trial: Mapping[str, Any], seed: int) -> ConfigDict:
        """Returns the config of one run of a cell, with its shared directories."""
        config = cell.variant(trial, seed)
        config.init.dir = str(self.root / "fits" / _digest(fits.settings(config)))
        config.experts.dir = str(self.root / "experts" / _digest(stored.settings(config)))
        config.teacher.dir = str(
            self.root / "teachers" / _digest(teacher.settings(of_labels(config)))
        )
        config.evaluate.baselines = ""
        return config

    def workdir(self, config: ConfigDict) -> pathlib.Path:
        """Returns a run's work directory, readable and unique to the settings of its result."""
        parts = (config.data.name, config.data.subset, config.matching.name)
        parts += (config.parameterization.name, f"seed{config.seed}", _digest(decisive(config)))
        name = "-".join(str(part) for part in parts if part)
        return self.root / "runs" / re.sub(r"[^\w.-]", "-", name)

    def piece(self, cell: Cell, trial: Mapping[str, Any], seed: int) -> Piece:
        """Returns the piece that computes one seed's number under one trial."""
        config = self.config(cell, trial, seed)
        if cell.arm != "distilled":
            folder = self.root / "real" / f"{cell.arm}-{_digest(decisive(config))}"
            return _evaluation(config, {"arm": cell.arm}, folder / "result.json")
        if cell.steps:
            name = f"{cell.steps}-{self.workdir(config).name}"
            return _continual(config, cell.steps, self.root / "continual" / name)
        run = _run(config, self.workdir(config))
        if not cell.evaluation:
            return run
        result = self.workdir(config) / "evaluations" / f"{_digest(cell.evaluation)}.json"
        return _evaluation(config, cell.evaluation, result, run)

    def trials(self, cell: Cell) -> list[tuple[Mapping[str, Any], Piece]]:
        """Returns the runs that a cell chooses from; none for a single trial."""
        runs = dataclasses.replace(cell, evaluation={})
        of = cell.trials if len(cell.trials) > 1 else ()
        return [(trial, self.piece(runs, trial, cell.seeds[0])) for trial in of]

    def by_name(self, table_: Table) -> dict[str, Piece]:
        """Returns all pieces that a table may need by name, done or not."""
        goals = (
            self.piece(cell, trial, seed)
            for cell in table_.cells
            for trial, seed in itertools.product(cell.trials, cell.seeds)
        )
        return {piece.name: piece for goal in goals for piece in goal.in_order(whole=True)}

    def known(self, cell: Cell, chosen: Mapping[str, Any] | None) -> Iterator[Piece]:
        """Yields the pieces of a cell in order: its trials, then all seeds of the chosen one."""
        goals = [run for _, run in self.trials(cell)]
        goals += [self.piece(cell, chosen, seed) for seed in cell.seeds if chosen is not None]
        for goal in goals:
            yield from goal.in_order()

    def found(self, cell: Cell, reasons: Mapping[str, str]) -> Found:
        """Returns a cell's result so far; `reasons` gives, by name, why pieces were not run."""
        score = lambda run: read_object(run.result, "a run's result")["distilled_train_accuracy"]
        trials = tuple(
            (trial, score(run) if run.done() else None, run.why_missing(reasons))
            for trial, run in self.trials(cell)
        )
        chosen = cell.trials[0]
        if trials:
            scored = [(value, trial) for trial, value, _ in trials if value is not None]
            settled = scored and all(value is not None or why for _, value, why in trials)
            chosen = max(scored, key=lambda pair: pair[0])[1] if settled else None
        if chosen is None:
            return Found({}, None, trials, next((why for *_, why in trials if why), ""))
        pieces = {seed: self.piece(cell, chosen, seed) for seed in cell.seeds}
        accuracies = {s: _accuracies(cell, p.result) for s, p in pieces.items() if p.done()}
        reason = next((why for p in pieces.values() if (why := p.why_missing(reasons))), "")
        return Found(accuracies, chosen, trials, reason)


def reproduce(
    table_: Table,
    root: str | os.PathLike,
    reporter: OneLine,
    cells: Sequence[Cell] = (),
) -> tuple[list[Found], dict[str, str]]:
    """Runs the missing pieces of a table under `root`; writes the table after each piece.

    With `cells`, those of `table_.part`, only their pieces are run; the table has all results.

    A piece that cannot be run (no data, too little memory) or fails leaves its cells without a
    number, but with the reason; other pieces are still run.

    Returns:
      The cells' results, in the first process only, and the reasons of failures by name.

    Raises:
      OSError: the table cannot be written.
      Exception: a piece failed in some processes only.
    """
    folder, failed = Folder(root), {}
    work = _Work(table_, folder, reporter, cells or table_.cells)
    pieces = folder.by_name(table_)
    while name := processes.from_first(work.next).decode():
        try:
            pieces[name].run(reporter)
        except InUseError:
            work.in_use.add(name)
            continue
        except Exception as error:  # the other pieces do not need this one
            if not processes.all_failed():
                raise
            failed[name] = work.reasons[name] = _reason(error)
        if processes.first() and not pieces[name].done():
            work.reasons.setdefault(name, "it left no result")
        jax.clear_caches()  # the programs of a whole table would fill memory
    return work.found, failed | work.unreadable


def _reason(error: Exception) -> str:
    """Returns the reason that a piece failed, in one line."""
    if isinstance(error, UsageError):
        return str(error)
    return printable(memory.exhausted(error) or f"{type(error).__name__}: {error}".splitlines()[0])


class _Work:
    """Remaining work of a table; the first process uses it to choose the next piece."""

    def __init__(self, table_: Table, folder: Folder, reporter: OneLine, cells: Sequence[Cell]):
        self.found: list[Found] = []
        self.reasons: dict[str, str] = {}  # by piece that was not run
        self.unreadable: dict[str, str] = {}  # by cell
        self.in_use: set[str] = set()  # pieces that others had when they were last tried
        self._table, self._folder, self._reporter, self._cells = table_, folder, reporter, cells

    def next(self) -> bytes:
        """Writes the table; returns the name of a piece that may be free, empty if all are done."""
        table_, folder = self._table, self._folder
        folder.root.mkdir(parents=True, exist_ok=True)
        while True:
            self.found = [self._found(cell) for cell in table_.cells]
            table.write(table_, self.found, folder.root)
            of = zip(table_.cells, self.found, strict=True)
            chosen = {(cell.row, cell.column): f.chosen for cell, f in of}
            known = (
                piece
                for cell in self._cells
                for piece in folder.known(cell, chosen[cell.row, cell.column])
            )
            reasons = self.reasons
            missing = {p.name: p for p in known if not p.done() and not p.why_missing(reasons)}
            if not missing:
                return b""
            if refused := {n: why for n, p in missing.items() if (why := why_not(table_, p))}:
                self.reasons |= refused
                continue
            for name, piece in missing.items():
                # Its requirements are run by another command, or later by this one.
                if name not in self.in_use and all(need.done() for need in piece.needs):
                    self._begin(name, missing)
                    return name.encode()
            time.sleep(WAIT)
            self.in_use.clear()

    def _found(self, cell: Cell) -> Found:
        try:
            return self._folder.found(cell, self.reasons)
        except Exception as error:  # a damaged file must not affect other cells
            reason = _reason(error)
            self.unreadable[f"{cell.row} ({cell.column})"] = reason
            return Found(reason=reason)

    def _begin(self, name: str, missing: Mapping[str, Piece]) -> None:
        complete = sum(
            not f.reason and len(f.accuracies) == len(cell.seeds)
            for cell, f in zip(self._table.cells, self.found, strict=True)
        )
        costs = map(cost_of, missing.values())
        what = f"{self._table.name} {complete}/{len(self._table.cells)} cells, {name}"
        self._reporter.begin(what, sum(c.seconds for c in costs if c is not None))


def plan(
    table_: Table, root: str | os.PathLike, cells: Sequence[Cell] = ()
) -> list[tuple[str, str, cost.Cost | None]]:
    """Returns (name, state, cost) of all known pieces: every trial, and one trial's other seeds.

    With `cells`, those of `table_.part`, only their pieces.
    """
    folder, seen = Folder(root), {}
    for piece in (p for cell in cells or table_.cells for p in folder.known(cell, cell.trials[0])):
        if piece.name not in seen:
            reason = "" if piece.done() else why_not(table_, piece)
            state = "done" if piece.done() else f"no: {reason}" if reason else "to do"
            seen[piece.name] = (piece.name, state, cost_of(piece))
    return list(seen.values())


def cost_of(piece: Piece) -> cost.Cost | None:
    """Returns a piece's cost, or None if it cannot be estimated."""
    try:
        return piece.cost()
    except Exception:  # running the piece reports it
        return None


def why_not(table_: Table, piece: Piece) -> str:
    """Returns the reason that a piece cannot be run here, in a few words; else empty."""
    if table_.needs_gpu and jax.default_backend() == "cpu":
        return "no GPU"
    if reason := cost.no_data(piece.config):
        return f"no data: {reason}"
    estimate, there = cost_of(piece), devices.memory()
    if estimate is not None and estimate.bytes > there:
        return (
            f"too little memory: about {estimate.bytes / 2**30:.1f} GiB, "
            f"{there / 2**30:.1f} GiB are there"
        )
    return ""


def _accuracies(cell: Cell, result: pathlib.Path) -> list[float]:
    value: Any = read_object(result, "an evaluation's result")
    name = cell.value if cell.arm == "distilled" else f"{cell.arm}_accuracies"
    for part in name.split("/"):
        value = value[part]
    return [float(a) for a in np.ravel(value)]


def _digest(values: Mapping[str, Any]) -> str:
    return digest(values)[:10]
