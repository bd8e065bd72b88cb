"""Runs every cell of a table, each piece once, and goes on where it stopped.

What cells share is found by what it depends on: experts by their settings, fits by theirs, a run by
its config. Several commands may work on the same folder: each takes what no other one has. One may
be of several processes, which run every piece together; the first of them says which is next.

    <root>/experts/, fits/    shared by the runs
    <root>/runs/<name>/       a work directory for each, as of `launch.distill`
    <root>/<table>.md         with .csv and .json; written anew after each piece
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
from gsdd_jax.runs import evaluation, experts, fits
from gsdd_jax.runs.distill import distill_to
from gsdd_jax.runs.progress import OneLine
from gsdd_jax.setup import cost
from gsdd_jax.setup import experts as stored
from gsdd_jax.storage.workdir import decisive, digest
from gsdd_jax.tables import table
from gsdd_jax.tables.table import Cell, Found, Table

WAIT = 10.0  # seconds, where other commands have all that is left


@runtime_checkable
class Piece(Protocol):
    """Something that is run once, whichever cells want it."""

    name: str
    config: ConfigDict

    def needs(self) -> list[Piece]:
        """What has to be done before it."""
        ...

    def done(self) -> bool:
        """Whether its result is on disk."""
        ...

    def run(self, reporter: OneLine) -> None:
        """Runs it, or goes on with it."""
        ...

    def cost(self) -> cost.Cost:
        """What the whole of it takes."""
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
        return experts_ + ([_Fit(config)] if fitted else [])

    def done(self) -> bool:
        return (self.workdir / "result.json").exists()

    def run(self, reporter: OneLine) -> None:
        distill_to(self.config, self.workdir, reporter)

    def cost(self) -> cost.Cost:
        return cost.of_run(self.config)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """Of a run's distilled set in another way than the run's; or of real images, without a set."""

    config: ConfigDict
    of: _Run | None
    settings: Mapping[str, Any]
    path: pathlib.Path

    @property
    def name(self) -> str:
        folder = self.path.parent if self.of is None else self.of.workdir
        return f"evaluation {folder.name}/{self.path.stem}"

    def needs(self) -> list[Piece]:
        return [self.of] if self.of else []

    def done(self) -> bool:
        return self.path.exists()

    def run(self, reporter: OneLine) -> None:
        taken = f"{self.path.parent}: another process evaluates here"
        with processes.held(lambda: locked(self.path.parent, taken)):
            if self.of is None:
                result = evaluation.evaluate_real(self.config, self.settings["arm"], reporter)
            else:
                source = self.of.workdir / "distilled.safetensors"
                result = evaluation.evaluate_file(
                    source, display=reporter, beside=False, **self.settings
                )
            if processes.first():
                write_json(self.path, result)

    def cost(self) -> cost.Cost:
        return cost.of_evaluation(self.config, self.settings)


class Folder:
    """Where the pieces of tables are, and which of them a cell needs."""

    def __init__(self, root: str | os.PathLike):
        self.root = pathlib.Path(root)

    def config(self, cell: Cell, trial: Mapping[str, Any], seed: int) -> ConfigDict:
        """Of one run of a cell, with the folders that it shares."""
        config = cell.variant(trial, seed)
        config.init.dir = str(self.root / "fits" / _digest(fits.settings(config)))
        config.experts.dir = str(self.root / "experts" / _digest(stored.settings(config)))
        config.evaluate.beside = ""
        return config

    def pieces(self, cell: Cell, trial: Mapping[str, Any], seed: int) -> list[Piece]:
        """That give one seed's number under one trial, in the order of running."""
        pieces = list(self._all_pieces(cell, trial, seed))
        if any(isinstance(piece, _Run) and piece.done() for piece in pieces):
            # Of what it was made from nothing need be kept.
            return [piece for piece in pieces if not isinstance(piece, _Experts | _Fit)]
        return pieces

    def by_name(self, table_: Table) -> dict[str, Piece]:
        """All that a table may need, whatever is done."""
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
            yield _Evaluation(config, None, {"arm": cell.arm}, path)
            return
        run = _Run(config, self.workdir(config))
        yield from run.needs()
        yield run
        if cell.evaluation:
            path = run.workdir / "evaluations" / f"{_digest(cell.evaluation)}.json"
            yield _Evaluation(config, run, cell.evaluation, path)

    def workdir(self, config: ConfigDict) -> pathlib.Path:
        """A run's: readable, and another for whatever changes its result."""
        parts = (config.data.name, config.data.subset, config.matching.name)
        parts += (config.parameterization.name, f"seed{config.seed}", _digest(decisive(config)))
        name = "-".join(str(part) for part in parts if part)
        return self.root / "runs" / re.sub(r"[^\w.-]", "-", name)

    def seed_pieces(self, cell: Cell, found: Found) -> Iterator[Piece]:
        """All that a cell is known to need by what it has come to: its trials, then all seeds."""
        only_run = dataclasses.replace(cell, evaluation={})
        for trial in cell.trials:
            yield from self.pieces(only_run if len(cell.trials) > 1 else cell, trial, cell.seeds[0])
        if found.chosen is not None:
            for seed in cell.seeds:
                yield from self.pieces(cell, found.chosen, seed)

    def found(self, cell: Cell, reasons: Mapping[str, str]) -> Found:
        """What a cell has come to; `reasons` say of pieces by name why they were not run."""
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
    """Runs what is missing of a table under `root` and writes it there after each piece.

    A piece that cannot be run (no data, too little memory) or fails, whatever it raises, leaves its
    cells without a number and says why; the others go on.

    Returns what the cells came to, in the first of several processes, and by their names why pieces
    failed.

    Raises OSError where the table cannot be written, and what a piece raises that fails in some of
    several processes alone.
    """
    folder, failed = Folder(root), {}
    pieces, work = folder.by_name(table_), _Work(table_, folder, reporter)
    while name := processes.from_first(work.next).decode():
        start, reason = time.monotonic(), ""
        try:
            pieces[name].run(reporter)
        except InUseError:
            continue
        except Exception as error:  # of any kind: the other pieces do not need this one
            if not processes.all_failed():
                raise
            reason = failed[name] = _reason(error)
        if processes.first():
            work.ran(pieces[name], time.monotonic() - start, reason)
        jax.clear_caches()  # a table has more programs than memory should keep
    return work.found, failed | work.unreadable


def _reason(error: Exception) -> str:
    """Why a piece failed, in a line."""
    if isinstance(error, UsageError):
        return str(error)
    return printable(memory.exhausted(error) or f"{type(error).__name__}: {error}".splitlines()[0])


class _Work:
    """What is left of a table, for the first process, which says what is next."""

    def __init__(self, table_: Table, folder: Folder, reporter: OneLine):
        self.found: list[Found] = []
        self.unreadable: dict[str, str] = {}  # by cell, why its result is none
        self._table, self._folder, self._reporter = table_, folder, reporter
        self._reasons: dict[str, str] = {}
        self._clock, self._names = _Clock(), self._offered()
        self._has_run = False

    def next(self) -> bytes:
        """The name of a piece that is not done and may be free; nothing where all is done."""
        return next(self._names, "").encode()

    def ran(self, piece: Piece, seconds: float, reason: str) -> None:
        """The piece that was next was not in use; `reason` says why it has no result."""
        if not reason and not piece.done():
            reason = "it left no result"
        if reason:
            self._reasons[piece.name] = reason
        self._clock.add(piece, seconds)
        self._has_run = True

    def _found(self, cell: Cell) -> Found:
        try:
            return self._folder.found(cell, self._reasons)
        except Exception as error:  # of any kind: a damaged file is no other cell's
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
                    continue  # another command has what is needed, or this one will
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
    """(name, state, cost) of every piece that is known by now; a cell that searches lists its
    trials, and the other seeds once for the first of them."""
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
    """None where it cannot be estimated."""
    try:
        return piece.cost()
    except Exception:  # of any kind: running it says why
        return None


def why_not(table_: Table, piece: Piece) -> str:
    """Why a piece cannot be run here, in a few words; empty if it can."""
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
    """The time left, by the estimates and by how far off they were so far."""

    def __init__(self):
        self._estimated = self._taken = 0.0

    def add(self, piece: Piece, seconds: float) -> None:
        estimate = cost_of(piece)
        self._estimated += estimate.seconds if estimate else 0.0
        self._taken += seconds

    def left(self, piece: Piece, waiting: list[Piece]) -> float:
        """Seconds, `piece` and all after it included."""
        factor = self._taken / self._estimated if self._estimated else 1.0
        costs = (cost_of(p) for p in waiting)
        return factor * sum(c.seconds for c in costs if c is not None)


def _missing(
    folder: Folder, table_: Table, found: list[Found], reasons: Mapping[str, str]
) -> list[Piece]:
    """Pieces to run, each once, nothing of whose needs is missing for good."""
    missing = {}
    for cell, f in zip(table_.cells, found, strict=True):
        for piece in folder.seed_pieces(cell, f):
            if piece.name not in missing and not piece.done() and not _lost(piece, reasons):
                missing[piece.name] = piece
    return list(missing.values())


def _lost(piece: Piece, reasons: Mapping[str, str]) -> bool:
    """Whether a piece, or what it needs, is among those that were not run."""
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
