"""Joins several processes, on one or more machines, to compute together by `jax.distributed`.

Every process runs the whole program on the same data, and computes the share of its devices
(`core.mesh`). Only the first process reads and writes the run's files and prints. `from_first`
broadcasts what it reads; `held` extends its locks to all processes.

Before JAX starts, the processes meet at the port after the coordinator's and compare their tasks
(`core.meeting`). The connections stay open. If a process ends early, the others end at once, in
one line.

JAX 0.10 has no replacement that ends in a line. `jax.distributed.initialize` accepts processes that
expect different numbers of processes. If one does not come, an index is given twice or the first
one ends, XLA aborts every process with a native stack trace.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from gsdd_jax.core import meeting
from gsdd_jax.core.errors import InUseError, UsageError, printable
from gsdd_jax.core.meeting import Line, Place

MEETING = 60.0  # seconds to wait for all processes
PATIENCE = 10.0  # seconds, for an imminent event
STATUS = 1  # exit status after another process ended early
AGAIN = "the same commands resume from the last checkpoint"
# Schedulers by which JAX finds the other processes, and the variable with the number of tasks.
# Kubernetes and clouds are left out: JAX detects them for a single process too.
SCHEDULERS = {"slurm": "SLURM_STEP_NUM_TASKS", "ompi": "OMPI_COMM_WORLD_SIZE"}
_DONE, _FAILED, _REFUSED = "done", "failed", "refused"  # said by all before an end
_TAKEN = b"+"
_REFUSALS = {b"~": InUseError, b"-": UsageError}  # the narrower one first


def place(coordinator: str | None, count: int | None, index: int | None) -> Place | None:
    """Parses the flags; None if none is given. Raises UsageError if they are inconsistent."""
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise UsageError(f"{missing[0]}: expected with the other two of --{', --'.join(given)}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65535:
        raise UsageError(f"--coordinator: expected HOST:PORT of process 0, got {coordinator!r}")
    if count < 1:
        raise UsageError(f"--num_processes: expected at least 1, got {count}")
    if not 0 <= index < count:
        raise UsageError(f"--process_id: expected 0 to {count - 1}, got {index}")
    return Place(host.strip("[]"), int(port), count, index)


@contextlib.contextmanager
def together(here: Place | None, task: Mapping[str, Any]) -> Iterator[None]:
    """Joins this process to the others for the duration of the context; before JAX is used.

    `here` is the place from the flags; None asks a scheduler if there is one, else stays alone.
    `task` has plain values by flag or field. Raises UsageError if a process does not come, or has
    another task.
    """
    if here is None:
        for scheduler, tasks in SCHEDULERS.items():
            number = os.environ.get(tasks, "1")
            if not number.isdecimal() or len(number) > 9:
                raise UsageError(f"{tasks}: expected a number of processes, got {number!r}")
            if int(number) > 1:
                _join_by(scheduler, dict(task))
                break
    elif here.count > 1:
        _join(here, dict(task))
    if not first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process lives
    try:
        yield
    except UsageError as error:
        if _peers is not None:
            _peers.refuse(str(error))
        raise
    except Exception as error:
        if _peers is not None:  # if a peer is gone, the watch reports it first
            time.sleep(PATIENCE)
            _peers.tell(f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    if _peers is not None:
        _peers.leave()


def _join(here: Place, task: dict[str, Any]) -> None:
    # Before JAX, which aborts if a process does not come, or ends while the others wait.
    _watch(here, meeting.meet(here, here.port + 1, task, MEETING))
    _initialize(
        f"{here.host}:{here.port}", here.count, here.index, initialization_timeout=int(MEETING)
    )


def _join_by(scheduler: str, task: dict[str, Any]) -> None:
    _initialize(cluster_detection_method=scheduler)
    door = meeting.opened(socket.gethostname(), 0) if first() else None
    named = from_first(lambda: json.dumps([socket.gethostname(), door.getsockname()[1]]).encode())
    host, port = json.loads(named)
    here = Place(host, 0, jax.process_count(), jax.process_index())
    _watch(here, meeting.meet(here, port, task, MEETING, door))


def _initialize(*address: Any, **how: Any) -> None:
    # Silences native messages of JAX and its collectives; Python keeps its streams.
    for stream in ("stdout", "stderr"):
        kept = getattr(sys, stream)
        kept.flush()
        setattr(sys, stream, os.fdopen(os.dup(kept.fileno()), "w", buffering=1))
        os.dup2(os.open(os.devnull, os.O_WRONLY), kept.fileno())
    jax.config.update("jax_enable_recoverability", True)  # `_Peers` detects ends
    jax.distributed.initialize(*address, **how)


def _watch(here: Place, lines: dict[int, Line]) -> None:
    global _peers
    _peers = _Peers(here, lines)
    threading.Thread(target=_peers.watch, name="peers", daemon=True).start()


def first() -> bool:
    """Returns whether this process reads, writes and prints."""
    return jax.process_index() == 0


def from_first(make: Callable[[], bytes]) -> bytes:
    """Runs `make` in the first process and broadcasts its result.

    Raises the first process's UsageError or InUseError in all processes.
    """
    if jax.process_count() == 1:
        return make()
    sent = b""
    if first():
        try:
            sent = _TAKEN + make()
        except UsageError as error:
            mark = next(mark for mark, kind in _REFUSALS.items() if isinstance(error, kind))
            sent = mark + str(error).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(sent))))
    buffer = np.frombuffer(sent, np.uint8) if first() else np.zeros(length, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()
    if received[:1] != _TAKEN:
        raise _REFUSALS[received[:1]](received[1:].decode())
    return received[1:]


@contextlib.contextmanager
def held(make: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
    """Enters the context that `make` returns in the first process, on behalf of all.

    Raises as `from_first` if the context cannot be entered.
    """
    with contextlib.ExitStack() as stack:
        from_first(lambda: stack.enter_context(make()) or b"")
        yield


def all_failed() -> bool:
    """Returns whether all processes failed here, so that all can continue with other work.

    A process that does not report within `MEETING` seconds is stuck in the failed computation; then
    all have to end.
    """
    return _peers is None or _peers.all_failed(MEETING)


_peers: "_Peers | None" = None


class _Peers:
    """Connections: process 0 has one to each other process, the others have one to process 0.

    A message is a line of JSON: [process, message].
    """

    def __init__(self, here: Place, lines: dict[int, Line]):
        self._here, self._lines = here, lines
        self._said: dict[str, set[int]] = {what: set() for what in (_DONE, _FAILED, _REFUSED)}
        self._all_said = {what: threading.Event() for what in self._said}
        self._all_gone = threading.Event()
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Ends this process as soon as another one ends early."""
        selector = selectors.DefaultSelector()
        for index, line in self._lines.items():
            selector.register(line.socket, selectors.EVENT_READ, (index, line))
        while selector.get_map():
            for key, _ in selector.select():
                index, line = key.data
                heard = line.read()
                for message in heard or ():
                    match message:
                        case [int(who), str(what)]:
                            self._heard(who, what)
                if heard is None:
                    selector.unregister(line.socket)
                    if not any(self._all_said[what].is_set() for what in (_DONE, _REFUSED)):
                        self._end(index, "ended early")
        self._all_gone.set()

    def tell(self, what: str) -> None:
        for line in self._lines.values():
            line.write(self._here.index, what)

    def leave(self) -> None:
        """Waits until all are done; the first process, which hosts the service, leaves last."""
        self._all_say(_DONE)
        if self._here.index == 0:
            self._all_gone.wait(PATIENCE)
            jax.distributed.shutdown()
        else:
            jax.distributed.shutdown()
            self._lines[0].socket.shutdown(socket.SHUT_RDWR)

    def all_failed(self, patience: float) -> bool:
        """Returns whether all processes call this within `patience` seconds."""
        if not self._all_say(_FAILED, patience):
            return False
        self._all_said[_FAILED].clear()
        return True

    def refuse(self, why: str) -> None:
        """Waits for all processes to refuse alike, or tells them why this one ends."""
        if not self._all_say(_REFUSED, PATIENCE):
            self.tell(why)
        elif self._here.index == 0:
            self._all_gone.wait(PATIENCE)

    def _all_say(self, what: str, patience: float | None = None) -> bool:
        if self._here.index == 0:
            self._heard(0, what)
        else:
            self.tell(what)
        return self._all_said[what].wait(patience)

    def _heard(self, who: int, what: str) -> None:
        if what not in self._said:
            self._end(who, what)
        with self._lock:
            said = self._said[what]
            said.add(who)
            if self._here.index or len(said) == self._here.count:  # process 0 has heard of all
                said.clear()
                self._all_said[what].set()
                if self._here.index == 0:
                    self.tell(what)

    def _end(self, who: int, what: str) -> NoReturn:
        if self._here.index == 0:
            for line in self._lines.values():
                line.write(who, what)
        # Unbuffered: a blocked thread may hold the lock of a buffered stream.
        text = printable(f"error: process {who}: {what}; {AGAIN}")
        os.write(sys.stderr.fileno(), f"{text}\n".encode())
        os._exit(STATUS)
