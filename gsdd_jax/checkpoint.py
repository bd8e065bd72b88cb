"""Checkpoints of a whole loop state, by Orbax: atomic, typed, restored to the bit."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from gsdd_jax.errors import UsageError


class Checkpoints:
    """The newest two states in one directory. A directory appears under its name when complete."""

    def __init__(self, directory: str | os.PathLike):
        self._manager = ocp.CheckpointManager(
            pathlib.Path(directory).absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
            ),
        )

    def save(self, step: int, state: Any) -> None:
        """Writes `state`, a pytree of arrays, and returns when it is on disk."""
        self._manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(self, like: Any) -> Any | None:
        """The newest state, or None if there is none.

        Raises UsageError if it does not have the structure, shapes and types of `like`.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), like)
        where = f"{self._manager.directory}/{step}"
        try:
            state = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        except (ValueError, KeyError, OSError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(f"{where}: not a checkpoint of this run ({first})") from None
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, target)
        if not all(jax.tree.leaves(same)):
            raise UsageError(f"{where}: the checkpoint's arrays have other shapes than this run's")
        return state

    def close(self) -> None:
        """Ends Orbax's background threads."""
        self._manager.close()
