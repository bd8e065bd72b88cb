"""Ends a command on Ctrl-C, SIGTERM or `--stop_after`, at any moment, with one line.

A fit, a distillation or an evaluation of a run ends with a checkpoint after the call that it
computes. A second signal ends it at once, as the first does everywhere else. The status is 0 where
time was up, or where SIGTERM, as a job scheduler sends it, has left a checkpoint; else 128 and the
signal.

Python's own handler waits for the main thread, which may be compiling. Imports can swallow it, and
it unwinds the interpreter under XLA's threads. All writes are atomic, so an immediate stop is safe.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from gsdd_jax.core import stopping

RESUMES = "; the same command resumes from its last checkpoint, if there is one"
WAITS = "interrupted: saves a checkpoint after the running call; interrupt again to end at once"
PATIENCE = 2.0  # seconds before it says that it waits

_says = "interrupted"
_received: int | None = signal.SIGINT  # None: time is up


def says(more: str) -> None:
    """Sets the text printed after "interrupted"."""
    global _says
    _says = f"interrupted{more}"


def install() -> None:
    """Makes SIGINT and SIGTERM end the process; call it before other threads exist.

    A process that was started to ignore SIGINT (in a script's background) still ignores it.
    """
    wanted = {
        received
        for received in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(received) is not signal.SIG_IGN
    }
    # Blocked here, and so in every later thread; one thread only waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    threading.Thread(target=_wait, args=(wanted,), name="interrupt", daemon=True).start()


def stop_after(seconds: float) -> None:
    """Ends the command after that time, as a signal would."""
    _later(seconds, _time_is_up, seconds)


def _later(seconds: float, function: Callable[..., None], argument: float | str) -> None:
    timer = threading.Timer(seconds, function, [argument])
    timer.daemon = True
    timer.start()


def _time_is_up(seconds: float) -> None:
    global _received, _says
    _received, _says = None, _says.replace("interrupted", f"stopped after {seconds:g} s", 1)
    if not stopping.ask():
        end()


def _wait(wanted: set[signal.Signals]) -> None:
    global _received
    _received = signal.sigwait(wanted)
    if not stopping.ask():
        end()
    _later(PATIENCE, _line, WAITS)
    signal.sigwait(wanted)
    end()


def end(received: int | None = None, saved: bool = False) -> NoReturn:
    """Ends the process with its signal's status; 0 when time is up, or on SIGTERM if `saved`."""
    received = received or _received
    _line(_says)
    fine = received is None or (saved and received == signal.SIGTERM)
    os._exit(0 if fine else 128 + received)


def _line(text: str) -> None:
    # No buffered stream: the interrupted thread may hold its lock.
    line = ("\n" if sys.stderr.isatty() else "") + text + "\n"
    os.write(sys.stderr.fileno(), line.encode())
