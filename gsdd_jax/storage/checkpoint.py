"""Checkpoints of a whole loop state, by Orbax: atomic, typed, restored to the bit."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gsdd_jax.core import mesh, processes
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_tree

OVERHEAD = 1 << 20  # bytes that a checkpoint takes besides its numbers, at most


class Checkpoints:
    """The newest two states in one directory. A directory appears under its name when complete."""

    def __init__(
        self,
        directory: str | os.PathLike,
        identity: str,
        report: Callable[[str], None] = lambda line: None,
    ):
        """States are stored with `identity` (of their run) and restored only by the same one.

        Raises UsageError where something below the directory is no regular file. Where the newest
        is damaged and the one before is taken, `report` gets a line that says so.
        """
        self._identity, self._report = {"identity": identity}, report
        self._manager = None
        if processes.first():
            check_tree(directory)
            self._manager = _manager(pathlib.Path(directory).absolute())

    def save(self, step: int, state: Any) -> None:
        """Writes `state`, a pytree of arrays, and returns when it is on disk.

        Raises UsageError, and leaves the states before, where a number is not finite or the disk
        is full.
        """
        state = jax.tree.map(mesh.to_host, state)
        if self._manager is None:
            return
        # Looked at before, because Orbax's threads print pages when they fail.
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        self._manager.directory.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._manager.directory).free < 2 * size + OVERHEAD:
            raise UsageError(
                f"{self._manager.directory}: the disk is too full for the checkpoint of step "
                f"{step} ({size / 2**20:.1f} MiB); make room, and the same command goes on"
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
                raise UsageError(
                    f"{self._manager.directory.name}: numbers of {jax.tree_util.keystr(path)} are "
                    f"not finite at step {step}; the last good checkpoint is step "
                    f"{self._manager.latest_step() or 0}; lower the learning rate"
                )
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(self._identity)
        )
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise UsageError(
                f"{self._manager.directory}: the checkpoint of step {step} cannot be written "
                f"({_first_line(error)}); make room, and the same command goes on"
            ) from None

    def restore(self, like: Any) -> Any | None:
        """The newest state that is whole, or None if there is none at all.

        Raises UsageError if none is whole, or if one is of another run or does not have the
        structure, shapes and types of `like`.
        """
        target = jax.tree.map(lambda a: np.empty(np.shape(a), a.dtype), like)
        read = processes.from_first(lambda: _packed(self._newest(target)))
        if not read:
            return None
        # As many devices go on as there are now, however many it was written from.
        return jax.tree.map(mesh.replicate, _unpacked(read, target))

    def close(self) -> None:
        """Ends Orbax's background threads."""
        if self._manager is not None:
            self._manager.close()

    def _newest(self, target):
        reasons: list[str] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            where = f"{self._manager.directory}/{step}"
            try:
                state = self._read(step, target)
            except Exception as error:  # Orbax and TensorStore raise many kinds
                if isinstance(error, UsageError):
                    raise
                reasons.append(f"{where}: damaged ({_first_line(error)})")
                continue
            self._forget_after(step)
            if reasons:
                self._report(f"{'; '.join(reasons)}; going on from step {step}")
            return state
        if reasons:
            raise UsageError(
                f"{'; '.join(reasons)}; no checkpoint is whole: delete them to begin again"
            )
        return None

    def _read(self, step, target):
        found = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
        if found.run != self._identity:
            raise UsageError(
                f"{self._manager.directory}/{step}: the checkpoint of a run with other settings or "
                "other data; move it away, or give another --workdir"
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        state = self._manager.restore(step, args=args).state
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, target)
        if not all(jax.tree.leaves(same)):
            raise ValueError("its arrays have other shapes than this run's")
        return state

    def _forget_after(self, step) -> None:
        """Deletes the damaged ones, which a run that goes on from here will write again."""
        for later in self._manager.all_steps():
            if later > step:
                shutil.rmtree(self._manager.directory / str(later), ignore_errors=True)
        self._manager.reload()


def _manager(directory: pathlib.Path) -> ocp.CheckpointManager:
    """Of this process alone."""
    alone = {}
    if jax.process_count() > 1:
        alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix=directory.name
        )
        directory.mkdir(parents=True, exist_ok=True)
        alone["create"] = False
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True, **alone
        ),
    )


def _packed(state: Any | None) -> bytes:
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))


def _unpacked(content: bytes, target: Any) -> Any:
    leaves, read = [], 0
    for leaf in jax.tree.leaves(target):
        end = read + leaf.nbytes
        leaves.append(np.frombuffer(content[read:end], leaf.dtype).reshape(leaf.shape))
        read = end
    return jax.tree.unflatten(jax.tree.structure(target), leaves)


def _first_line(error: Exception) -> str:
    text = str(error).partition(" [")[0].strip() or type(error).__name__
    return text.splitlines()[0][:200]
