"""Reproduces tables: runs each piece of every cell once, and resumes.

Cells share experts and fits of equal settings, and runs of equal configs. Several commands may work
on the same folder: each skips pieces in use by others. A command of several processes runs every
piece on all of them; the first process chooses the next piece.

    <root>/experts/, fits/    shared by the runs
    <root>/runs/<name>/       a work directory per run, as of `launch.distill`
    <root>/<table>.md         with .csv and .json; rewritten after each piece
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from ml_collections import ConfigDict

from gsdd_jax import matching
from gsdd_jax.core import devices, memory, processes
from gsdd_jax.core.errors import InUseError, UsageError, printable
from gsdd_jax.core.files import locked, read_object, write_json
from gsdd_jax.runs import baselines, evaluation, experts, fits, teacher
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import OneLine
from gsdd_jax.setup import cost
from gsdd_jax.setup import experts as stored
from gsdd_jax.setup.experiment import COMPRESSED
from gsdd_jax.storage.workdir import decisive, digest
from gsdd_jax.tables import table
from gsdd_jax.tables.table import Cell, Found, Table

WAIT = 10.0  # seconds between looks while all pieces left are in use


@runtime_checkable
class Piece(Protocol):
    """Unit of work that is run once for all cells."""

    name: str
    config: ConfigDict

    def needs(self) -> list[Piece]:
        """Returns the pieces to be done before it."""
        ...

    def done(self) -> bool:
        """Returns whether its result is on disk."""
        ...

    def run(self, reporter: OneLine) -> None:
        """Runs or resumes it."""
        ...

    def cost(self) -> cost.Cost:
        """Estimates its whole cost."""
        ...


@dataclasses.dataclass(frozen=True)
class _Experts:
    config: ConfigDict

    @property
    def name(self) -> str:
        settings = self.config.experts
        return f"{settings.num_experts} experts {pathlib.Path(settings.dir).name}"

    def needs(self) -> list[Piece]:
        return []

    def done(self) -> bool:
        return stored.are_there(self.config)

    def run(self, reporter: OneLine) -> None:
        experts.train_all(self.config, reporter)

    def cost(self) -> cost.Cost:
        return cost.of_experts(self.config)


@dataclasses.dataclass(frozen=True)
class _Fit:
    config: ConfigDict

    @property
    def name(self) -> str:
        return f"fit {self.config.parameterization.name} {pathlib.Path(self.config.init.dir).name}"

    def needs(self) -> list[Piece]:
        return []

    def done(self) -> bool:
        return fits.is_there(self.config)

    def run(self, reporter: OneLine) -> None:
        fits.fit_to_share(self.config, reporter)

    def cost(self) -> cost.Cost:
        return cost.of_fit(self.config)


@dataclasses.dataclass(frozen=True)
class _Teacher:
    config: ConfigDict

    @property
    def name(self) -> str:
        return f"teacher {pathlib.Path(self.config.teacher.dir).name}"

    def needs(self) -> list[Piece]:
        return []

    def done(self) -> bool:
        return teacher.is_there(self.config)

    def run(self, reporter: OneLine) -> None:
        teacher.train_to_share(self.config, reporter)

    def cost(self) -> cost.Cost:
        return cost.of_teacher(self.config)


@dataclasses.dataclass(frozen=True)
class _Run:
    config: ConfigDict
    workdir: pathlib.Path

    @property
    def name(self) -> str:
        return f"run {self.workdir.name}"

    def needs(self) -> list[Piece]:
        config = self.config
        experts_ = [_Experts(config)] if matching.find(config.matching.name).follows_experts else []
        fitted = config.init.images != "none" and config.init.num_steps
        taught = config.labels.source == "teacher"
        return (
            experts_ + ([_Teacher(config)] if taught else []) + ([_Fit(config)] if fitted else [])
        )

    def done(self) -> bool:
        return (self.workdir / "result.json").exists()

    def run(self, reporter: OneLine) -> None:
        distill_to(self.config, self.workdir, reporter)

    def cost(self) -> cost.Cost:
        return cost.of_run(self.config)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """Evaluation of a run's distilled set with other settings, or of real images without a run."""

    config: ConfigDict
    of: _Run | None
    settings: Mapping[str, Any]
    path: pathlib.Path

    @property
    def name(self) -> str:
        folder = self.path.parent if self.of is None else self.of.workdir
        return f"evaluation {folder.name}/{self.path.stem}"

    def needs(self) -> list[Piece]:
        if self.of:
            return [self.of]
        soft = COMPRESSED.get(self.settings["arm"], False)
        return [_Teacher(self.config)] if soft else []

    def done(self) -> bool:
        return self.path.exists()

    def run(self, reporter: OneLine) -> None:
        taken = f"{self.path.parent}: another process evaluates here"
        with processes.held(lambda: locked(self.path.parent, taken)):
            if self.of is None and self.settings["arm"] in COMPRESSED:
                here = self.path.parent
                result = baselines.evaluate_real(self.config, self.settings["arm"], here, reporter)
            elif self.of is None:
                result = evaluation.evaluate_real(self.config, self.settings["arm"], reporter)
            else:
                source = self.of.workdir / "distilled.safetensors"
                result = evaluation.evaluate_file(
                    source, display=reporter, baselines=False, **self.settings
                )
            if processes.first():
                write_json(self.path, result)

    def cost(self) -> cost.Cost:
        return cost.of_evaluation(self.config, self.settings)


class Folder:
    """Directory of tables' pieces, and the pieces of each cell."""

    def __init__(self, root: str | os.PathLike):
        self.root = pathlib.Path(root)

    def config(self, cell: Cell, trial: Mapping[str, Any], seed: int) -> ConfigDict:
        """Returns the config of one run of a cell, with its shared directories."""
        config = cell.variant(trial, seed)
        config.init.dir = str(self.root / "fits" / _digest(fits.settings(config)))
        config.experts.dir = str(self.root / "experts" / _digest(stored.settings(config)))
        config.teacher.dir = str(self.root / "teachers" / _digest(teacher.settings(config)))
        config.evaluate.baselines = ""
        return config

    def pieces(self, cell: Cell, trial: Mapping[str, Any], seed: int) -> list[Piece]:
        """Returns the pieces for one seed's number under one trial, in order of running."""
        pieces = list(self._all_pieces(cell, trial, seed))
        if any(isinstance(piece, _Run) and piece.done() for piece in pieces):
            # A finished run no longer needs its experts and fit.
            return [piece for piece in pieces if not isinstance(piece, _Experts | _Fit | _Teacher)]
        return pieces

    def by_name(self, table_: Table) -> dict[str, Piece]:
        """Returns all pieces that a table may need by name, done or not."""
        return {
            piece.name: piece
            for cell in table_.cells
            for trial in cell.trials
            for seed in cell.seeds
            for piece in self._all_pieces(cell, trial, seed)
        }

    def _all_pieces(self, cell, trial, seed) -> Iterator[Piece]:
        config = self.config(cell, trial, seed)
        if cell.arm != "distilled":
            path = self.root / "real" / f"{cell.arm}-{_digest(decisive(config))}" / "result.json"
            alone = _Evaluation(config, None, {"arm": cell.arm}, path)
            yield from alone.needs()
            yield alone
            return
        run = _Run(config, self.workdir(config))
        yield from run.needs()
        yield run
        if cell.evaluation:
            path = run.workdir / "evaluations" / f"{_digest(cell.evaluation)}.json"
            yield _Evaluation(config, run, cell.evaluation, path)

    def workdir(self, config: ConfigDict) -> pathlib.Path:
        """Returns a run's work directory: readable, and unique to what decides its result."""
        parts = (config.data.name, config.data.subset, config.matching.name)
        parts += (config.parameterization.name, f"seed{config.seed}", _digest(decisive(config)))
        name = "-".join(str(part) for part in parts if part)
        return self.root / "runs" / re.sub(r"[^\w.-]", "-", name)

    def seed_pieces(self, cell: Cell, found: Found) -> Iterator[Piece]:
        """Returns the pieces of a cell that are known so far: its trials, then all seeds."""
        only_run = dataclasses.replace(cell, evaluation={})
        for trial in cell.trials:
            yield from self.pieces(only_run if len(cell.trials) > 1 else cell, trial, cell.seeds[0])
        if found.chosen is not None:
            for seed in cell.seeds:
                yield from self.pieces(cell, found.chosen, seed)

    def found(self, cell: Cell, reasons: Mapping[str, str]) -> Found:
        """Returns a cell's result so far; `reasons` gives, by name, why pieces were not run."""
        first = cell.seeds[0]
        trials, why = [], ""
        for trial in cell.trials:
            value, reason = None, self._reason(cell, trial, first, reasons)
            run = self.workdir(self.config(cell, trial, first)) / "result.json"
            if len(cell.trials) > 1 and run.exists():
                value = read_object(run, "a run's result")["distilled_train_accuracy"]
            trials.append((trial, value, reason))
            why = why or reason
        chosen = None
        if len(cell.trials) == 1:
            chosen = cell.trials[0]
        elif all(value is not None or reason for _, value, reason in trials):
            scored = [(value, trial) for trial, value, _ in trials if value is not None]
            chosen = max(scored, key=lambda pair: pair[0])[1] if scored else None
        if chosen is None:
            return Found({}, None, tuple(trials), why)
        accuracies = {}
        for seed in cell.seeds:
            *_, last = self.pieces(cell, chosen, seed)
            if last.done():
                accuracies[seed] = _accuracies(cell, last)
        reason = next((r for s in cell.seeds if (r := self._reason(cell, chosen, s, reasons))), "")
        return Found(accuracies, chosen, tuple(trials), reason)

    def _reason(self, cell, trial, seed, reasons) -> str:
        pieces = (p for p in self.pieces(cell, trial, seed) if p.name in reasons)
        return next((reasons[p.name] for p in pieces if not p.done()), "")


def reproduce(
    table_: Table, root: str | os.PathLike, reporter: OneLine
) -> tuple[list[Found], dict[str, str]]:
    """Runs what is missing of a table under `root`, and writes the table after each piece.

    A piece that cannot be run (no data, too little memory) or fails leaves its cells without a
    number, but with the reason; other pieces are still run.

    Returns:
      The cells' results, in the first process only, and the reasons of failures by name.

    Raises:
      OSError: the table cannot be written.
      Exception: a piece failed in some processes only.
    """
    folder, failed = Folder(root), {}
    pieces, work = folder.by_name(table_), _Work(table_, folder, reporter)
    while name := processes.from_first(work.next).decode():
        start, reason = time.monotonic(), ""
        try:
            pieces[name].run(reporter)
        except InUseError:
            continue
        except Exception as error:  # the other pieces do not need this one
            if not processes.all_failed():
                raise
            reason = failed[name] = _reason(error)
        if processes.first():
            work.ran(pieces[name], time.monotonic() - start, reason)
        jax.clear_caches()  # the programs of a whole table would fill memory
    return work.found, failed | work.unreadable


def _reason(error: Exception) -> str:
    """Returns one line: why a piece failed."""
    if isinstance(error, UsageError):
        return str(error)
    return printable(memory.exhausted(error) or f"{type(error).__name__}: {error}".splitlines()[0])


class _Work:
    """Remaining work of a table; the first process uses it to choose the next piece."""

    def __init__(self, table_: Table, folder: Folder, reporter: OneLine):
        self.found: list[Found] = []
        self.unreadable: dict[str, str] = {}  # reasons by cell
        self._table, self._folder, self._reporter = table_, folder, reporter
        self._reasons: dict[str, str] = {}
        self._clock, self._names = _Clock(), self._offered()
        self._has_run = False

    def next(self) -> bytes:
        """Returns the name of an unfinished piece that may be free; empty if all are done."""
        return next(self._names, "").encode()

    def ran(self, piece: Piece, seconds: float, reason: str) -> None:
        """Records that the last piece was run; `reason` tells why it has no result."""
        if not reason and not piece.done():
            reason = "it left no result"
        if reason:
            self._reasons[piece.name] = reason
        self._clock.add(piece, seconds)
        self._has_run = True

    def _found(self, cell: Cell) -> Found:
        try:
            return self._folder.found(cell, self._reasons)
        except Exception as error:  # a damaged file must not affect other cells
            reason = _reason(error)
            self.unreadable[f"{cell.row} ({cell.column})"] = reason
            return Found(reason=reason)

    def _offered(self) -> Iterator[str]:
        table_, folder = self._table, self._folder
        folder.root.mkdir(parents=True, exist_ok=True)
        while True:
            self.found = [self._found(cell) for cell in table_.cells]
            table.write(table_, self.found, folder.root)
            waiting = _missing(folder, table_, self.found, self._reasons)
            if not waiting:
                return
            if refused := {p.name: why for p in waiting if (why := why_not(table_, p))}:
                self._reasons |= refused
                continue
            complete = sum(
                not f.reason and len(f.accuracies) == len(cell.seeds)
                for cell, f in zip(table_.cells, self.found, strict=True)
            )
            self._has_run = False
            for piece in waiting:
                if not all(need.done() for need in piece.needs()):
                    continue  # another command runs its needs, or this one will
                self._reporter.begin(
                    f"{table_.name} {complete}/{len(table_.cells)} cells, {piece.name}",
                    self._clock.left(piece, waiting),
                )
                yield piece.name
                if self._has_run:
                    break
            else:
                time.sleep(WAIT)


def plan(table_: Table, root: str | os.PathLike) -> list[tuple[str, str, cost.Cost | None]]:
    """Returns (name, state, cost) of all known pieces: every trial, and one trial's other seeds."""
    folder, seen = Folder(root), {}
    for cell in table_.cells:
        rest = ((cell.trials[0], seed) for seed in cell.seeds)
        for trial, seed in (*((t, cell.seeds[0]) for t in cell.trials), *rest):
            for piece in folder.pieces(cell, trial, seed):
                if piece.name not in seen:
                    reason = "" if piece.done() else why_not(table_, piece)
                    state = "done" if piece.done() else f"no: {reason}" if reason else "to do"
                    seen[piece.name] = (state, cost_of(piece))
    return [(name, *rest) for name, rest in seen.items()]


def cost_of(piece: Piece) -> cost.Cost | None:
    """Returns a piece's cost, or None if it cannot be estimated."""
    try:
        return piece.cost()
    except Exception:  # running the piece reports it
        return None


def why_not(table_: Table, piece: Piece) -> str:
    """Returns why a piece cannot be run here, in a few words; empty if it can."""
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


class _Clock:
    """Estimate of the time left, corrected by the times so far."""

    def __init__(self):
        self._estimated = self._taken = 0.0

    def add(self, piece: Piece, seconds: float) -> None:
        estimate = cost_of(piece)
        self._estimated += estimate.seconds if estimate else 0.0
        self._taken += seconds

    def left(self, piece: Piece, waiting: list[Piece]) -> float:
        """Returns the seconds of all waiting pieces, `piece` included."""
        factor = self._taken / self._estimated if self._estimated else 1.0
        costs = (cost_of(p) for p in waiting)
        return factor * sum(c.seconds for c in costs if c is not None)


def _missing(
    folder: Folder, table_: Table, found: list[Found], reasons: Mapping[str, str]
) -> list[Piece]:
    """Returns the pieces to run, each once, without those whose needs cannot be met."""
    missing = {}
    for cell, f in zip(table_.cells, found, strict=True):
        for piece in folder.seed_pieces(cell, f):
            if piece.name not in missing and not piece.done() and not _lost(piece, reasons):
                missing[piece.name] = piece
    return list(missing.values())


def _lost(piece: Piece, reasons: Mapping[str, str]) -> bool:
    """Returns whether a piece, or one that it needs, was not run for one of the `reasons`."""
    if piece.name in reasons:
        return True
    return any(_lost(need, reasons) and not need.done() for need in piece.needs())


def _accuracies(cell: Cell, piece: Piece) -> list[float]:
    path = piece.path if isinstance(piece, _Evaluation) else piece.workdir / "result.json"
    value: Any = read_object(path, "an evaluation's result")
    name = cell.value if cell.arm == "distilled" else f"{cell.arm}_accuracies"
    for part in name.split("/"):
        value = value[part]
    return [float(a) for a in np.ravel(value)]


def _digest(values: Mapping[str, Any]) -> str:
    return digest(values)[:10]
