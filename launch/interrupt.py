"""Ends a command on Ctrl-C or SIGTERM with one line and status 130 or 143, at any moment.

A run with unsaved steps ends with a checkpoint after the call that it computes. A second signal
ends it at once, as the first does everywhere else.

Python's own handler waits for the main thread, which may be compiling. Imports can swallow it, and
it unwinds the interpreter under XLA's threads. All writes are atomic, so an immediate stop is safe.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import NoReturn

RESUMES = "; the same command resumes from the last checkpoint"
WAITS = "interrupted: saves a checkpoint after the running call; interrupt again to end at once"
PATIENCE = 2.0  # seconds until it says that it waits

_says = "interrupted"
_received = signal.SIGINT


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
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        for received in wanted:
            signal.signal(received, lambda number, _: end(number))
        return
    # Blocked here, and so in every thread to come; one thread does nothing but wait for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    threading.Thread(target=_wait, args=(wanted,), name="interrupt", daemon=True).start()


def _wait(wanted: set[signal.Signals]) -> None:
    global _received
    _received = signal.sigwait(wanted)
    stopping = sys.modules.get("gsdd_jax.core.stopping")  # without it, no run goes on yet
    if stopping is None or not stopping.ask():
        end()
    waits = threading.Timer(PATIENCE, _line, [WAITS])
    waits.daemon = True
    waits.start()
    signal.sigwait(wanted)
    end()


def end(received: int | None = None) -> NoReturn:
    """Ends the process as the signal that it got asks for."""
    _line(_says)
    os._exit(128 + (received or _received))


def _line(text: str) -> None:
    # No buffered stream: its lock may be held by the thread that is interrupted.
    line = ("\n" if sys.stderr.isatty() else "") + text + "\n"
    os.write(sys.stderr.fileno(), line.encode())
