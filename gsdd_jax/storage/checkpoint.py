"""Checkpoints of a whole loop state, by Orbax: atomic, typed, restored to the bit."""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gsdd_jax.core import mesh, processes
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_tree, locked
from gsdd_jax.formats.file import DIGESTS, digests

OVERHEAD = 1 << 20  # maximum bytes of a checkpoint besides its numbers
DUE_AFTER = 60.0  # seconds
_IDENTITY = "identity"
_PARTS = {"run", "state", "_CHECKPOINT_METADATA", "commit_success.txt"}  # of a step's folder


class Checkpoints:
    """The newest two states in one directory. A directory appears under its name when complete."""

    def __init__(
        self,
        directory: str | os.PathLike,
        identity: str,
        report: Callable[[str], None] = lambda line: None,
    ):
        """Stores states with their run's `identity`, and restores only states of the same one.

        Raises UsageError where something below the directory is no regular file, or has the name
        of a step and is no checkpoint. Where the newest is damaged and the one before is taken,
        `report` gets a line that says so.
        """
        self._identity, self._report = {_IDENTITY: identity}, report
        self._manager, self._saved_at = None, time.monotonic()
        if processes.first():
            check_tree(directory)
            _check_steps(pathlib.Path(directory))
            try:
                self._manager = _manager(pathlib.Path(directory).absolute())
            except OSError as error:
                reason = error.strerror or error
                raise UsageError(f"{directory}: cannot hold checkpoints ({reason})") from None

    @property
    def is_due(self) -> bool:
        """Whether the last state was saved more than a minute ago, whatever the step."""
        return is_due(self._saved_at)

    def save(self, step: int, state: Any) -> None:
        """Writes `state`, a pytree of arrays, and returns when it is on disk.

        Raises UsageError, and leaves the states before, where a number is not finite or the disk
        is full.
        """
        state = jax.tree.map(mesh.to_host, state)
        if self._manager is None:
            return
        self._saved_at = time.monotonic()
        # Checked first, because Orbax's threads print pages when they fail.
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        self._manager.directory.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._manager.directory).free < 2 * size + OVERHEAD:
            raise UsageError(
                f"{self._manager.directory}: the disk is too full for the checkpoint of step "
                f"{step} ({size / 2**20:.1f} MiB); free space, and repeat the command: it resumes"
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(state):
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
                raise UsageError(
                    f"{self._manager.directory.name}: numbers of {jax.tree_util.keystr(path)} are "
                    f"not finite at step {step}; the last good checkpoint is step "
                    f"{self._manager.latest_step() or 0}; lower the learning rate"
                )
        run = self._identity | {DIGESTS: digests(_by_name(state), self._identity)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run))
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise UsageError(
                f"{self._manager.directory}: the checkpoint of step {step} cannot be written "
                f"({_first_line(error)}); free space, and repeat the command: it resumes"
            ) from None

    def restore(self, like: Any) -> Any | None:
        """Returns the newest intact state, or None if there is no state.

        Raises UsageError if none is whole, or if one is of another run or does not have the
        structure, shapes and types of `like`.
        """
        target = jax.tree.map(lambda a: np.empty(np.shape(a), a.dtype), like)
        read = processes.from_first(lambda: _packed(self._newest(target)))
        if not read:
            return None
        # Resumes on as many devices as there are now, however many it was written from.
        return jax.tree.map(mesh.replicate, _unpacked(read, target))

    def remove(self) -> None:
        """Deletes all states, and the directory if nothing else is there."""
        if self._manager is not None:
            for step in self._manager.all_steps():
                self._manager.delete(step)
            with contextlib.suppress(OSError):
                os.rmdir(self._manager.directory)

    def close(self) -> None:
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
            # A run that resumes from here writes the damaged ones again.
            for later in [s for s in self._manager.all_steps() if s > step]:
                self._manager.delete(later)
            if reasons:
                self._report(f"{'; '.join(reasons)}; resuming from step {step}")
            return state
        if reasons:
            raise UsageError(
                f"{'; '.join(reasons)}; no checkpoint is whole: delete them to begin again"
            )
        return None

    def _read(self, step, target):
        run = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run
        if not isinstance(run, dict) or run.keys() != {_IDENTITY, DIGESTS}:
            raise ValueError("it does not say of which run it is")
        expected = run.pop(DIGESTS)
        _check_digests(expected, digests({}, run))
        if run != self._identity:
            raise UsageError(
                f"{self._manager.directory}/{step}: the checkpoint of a run with other settings or "
                "other data; move it away, or give another directory"
            )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        state = self._manager.restore(step, args=args).state
        same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), state, target)
        if not all(jax.tree.leaves(same)):
            raise ValueError("its arrays have other shapes than this run's")
        # Orbax's files have no checksum of their numbers.
        _check_digests(expected, digests(_by_name(state), {}))
        return state


def is_due(saved_at: float) -> bool:
    """Returns whether `saved_at`, a time of `time.monotonic`, is more than a minute ago.

    Never of several processes, which have to save at the same step.
    """
    return jax.process_count() == 1 and time.monotonic() > saved_at + DUE_AFTER


@contextlib.contextmanager
def shared(
    own: pathlib.Path, directory: str, identity: str, report: Callable[[str], None], taken: str
) -> Iterator[Checkpoints]:
    """Opens the checkpoints of work that several runs may share.

    They are in a folder per `identity` of `directory`, or in `own`, in the run, if it is empty.
    `taken` ends the message if another process does the same work.
    """
    with contextlib.ExitStack() as stack:
        where = own
        if directory:
            where = pathlib.Path(directory, identity[:12])
            stack.enter_context(processes.held(lambda: locked(where, f"{where}: {taken}")))
        checkpoints = Checkpoints(where, identity, report)
        stack.callback(checkpoints.close)
        yield checkpoints


def _check_steps(directory: pathlib.Path) -> None:
    """Raises UsageError, naming the first, where something is named as a step and no checkpoint,
    damaged ones and the rest of one that was being deleted aside."""
    for path in sorted(directory.glob("[0-9]*")):
        if path.name.isdecimal():
            inside = {p.name for p in path.iterdir()} if path.is_dir() else {""}
            if path.is_symlink() or (inside and not inside & _PARTS):
                raise UsageError(f"{path}: not a checkpoint of a run; move it away")


def _manager(directory: pathlib.Path) -> ocp.CheckpointManager:
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
            max_to_keep=2,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # a step that is damaged is found when it is restored
            **alone,
        ),
    )


def _by_name(state: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _check_digests(expected: Any, found: dict[str, str]) -> None:
    for name, digest in found.items():
        if not isinstance(expected, dict) or expected.get(name) != digest:
            raise ValueError(f"{name} is not what its {DIGESTS} says")


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
