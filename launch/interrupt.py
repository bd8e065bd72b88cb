"""Ctrl-C and SIGTERM end a command with one line and status 130 or 143, whatever it is doing.

A run that has done what is not on disk ends after the call that it computes, with a checkpoint; a
second signal ends it at once, as the first does everywhere else.

Python's own handling waits for the main thread, which may be deep inside a compilation, can be
swallowed while modules are imported, and unwinds an interpreter under XLA's running threads. All
that is written is written atomically, so a command may as well stop on the spot.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import NoReturn

GOES_ON = "; the same command goes on from the last checkpoint"
WAITS = "interrupted: ends with a checkpoint after what it computes; once more, and it ends at once"
PATIENCE = 2.0  # seconds, until it says that it waits

_says = "interrupted"
_received = signal.SIGINT


def says(more: str) -> None:
    """What the line says after "interrupted" from now on."""
    global _says
    _says = f"interrupted{more}"


def install() -> None:
    """From now on both signals end the process; to be called before other threads exist.

    Where the process was started to ignore SIGINT (in the background of a script), it stays so.
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
