"""Trainings of evaluation networks, which an interrupted run resumes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from gsdd_jax.core import interrupts, mesh, stopping
from gsdd_jax.networks import Network
from gsdd_jax.storage import checkpoint
from gsdd_jax.storage.checkpoint import Checkpoints
from gsdd_jax.training import evaluate
from gsdd_jax.training.evaluate import Schedule, Students

PLACE = pathlib.Path("checkpoints", "evaluate")  # in a work directory
WORTH = 5.0  # seconds after the first call of a training that is kept when it has ended

_kept: _Kept | None = None


@contextlib.contextmanager
def kept(folder: pathlib.Path, report: Callable[[str], None]) -> Iterator[None]:
    """Keeps checkpoints of the block's trainings below `folder`, and removes them at its end.

    After an error or an interruption they stay, and the same trainings resume from them. `report`
    gets a line on a damaged one. Several processes that compute together keep none.
    """
    global _kept
    before, of_block = _kept, _Kept(folder, report)
    _kept = of_block if jax.process_count() == 1 else None
    try:
        yield
        for checkpoints in of_block.opened:
            checkpoints.remove()
        with contextlib.suppress(OSError):  # not made, or another training's are left
            folder.rmdir()
    finally:
        for checkpoints in of_block.opened:
            checkpoints.close()
        _kept = before


def train(
    network: Network,
    schedule: Schedule,
    key: Key[Array, ""],
    images: Float[Array, "sets m h w c"],
    labels: Any,
    *,
    learning_rate: float,
    num_students: int,
    progress: Callable[[int], None],
) -> Any:
    """Trains like `evaluate.train`; within `kept` it resumes, and stops on request."""
    of_all = dict(learning_rate=learning_rate, num_students=num_students, progress=progress)
    if _kept is None:
        return evaluate.train(network, schedule, key, images, labels, **of_all)
    settings = network, schedule, learning_rate, num_students
    keeper = _Keeper(_kept, lambda: _identity(settings, (key, images, labels)))
    with stopping.able(lambda: True):
        params = evaluate.train(network, schedule, key, images, labels, keeper=keeper, **of_all)
        keeper.finish()
    return params


class _Kept:
    """A folder for the checkpoints of trainings, and those that were opened."""

    def __init__(self, folder: pathlib.Path, report: Callable[[str], None]):
        self.folder, self._report = folder, report
        self.opened: list[Checkpoints] = []

    def open(self, identity: str) -> Checkpoints:
        self.opened.append(Checkpoints(self.folder / identity[:16], identity, self._report))
        return self.opened[-1]


class _Keeper(evaluate.Keeper):
    """Checkpoints of one training, opened when there is something to read or to write."""

    def __init__(self, of_block: _Kept, identity: Callable[[], str]):
        self._of_block, self._identity = of_block, identity
        self._saved_at, self._unsaved = time.monotonic(), None
        self._compiled_at: float | None = None

    @functools.cached_property
    def _checkpoints(self) -> Checkpoints:
        return self._of_block.open(self._identity())

    def restore(self, like: Students) -> Students:
        there = self._of_block.folder.is_dir()
        return (there and self._checkpoints.restore(like)) or like

    def keep(self, state: Students) -> None:
        self._unsaved = state
        self._compiled_at = self._compiled_at or time.monotonic()
        asked = stopping.asked()
        if asked or interrupts.noted() or checkpoint.is_due(self._saved_at):
            self._save()
        if asked:
            raise stopping.Stopped

    def finish(self) -> None:
        """Saves the last state if it took long: other trainings of the block may be interrupted."""
        if self._unsaved is not None and time.monotonic() > self._compiled_at + WORTH:
            self._save()

    def _save(self) -> None:
        self._checkpoints.save(int(self._unsaved.epoch), self._unsaved)
        self._saved_at, self._unsaved = time.monotonic(), None


def _identity(settings: Any, arrays: Any) -> str:
    """Returns a digest of everything that a training depends on."""
    key, *rest = arrays
    leaves, structure = jax.tree.flatten((jax.random.key_data(key), *rest))
    found = hashlib.sha256(f"{settings} {structure}".encode())
    for leaf in leaves:
        array = np.ascontiguousarray(mesh.to_host(leaf))
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.view(np.uint8))
    return found.hexdigest()
