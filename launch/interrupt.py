"""Ctrl-C ends a command with one line and status 130, whatever it is doing.

Python's own handling waits for the main thread, which may be deep inside a compilation, can be
swallowed while modules are imported, and unwinds an interpreter under XLA's running threads. All
that is written is written atomically, so a command may as well stop on the spot.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

STATUS = 130
GOES_ON = "; the same command goes on from the last checkpoint"

_says = "interrupted"


def says(more: str) -> None:
    """What the line says after "interrupted" from now on."""
    global _says
    _says = f"interrupted{more}"


def install() -> None:
    """From now on SIGINT ends the process; to be called before other threads exist.

    Where the process was started to ignore SIGINT (in the background of a script), it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        signal.signal(signal.SIGINT, lambda *_: _end())
        return
    # Blocked here, and so in every thread to come; one thread does nothing but wait for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_wait, name="interrupt", daemon=True).start()


def _wait() -> None:
    signal.sigwait({signal.SIGINT})
    _end()


def _end() -> None:
    # No buffered stream: its lock may be held by the thread that is interrupted.
    line = ("\n" if sys.stderr.isatty() else "") + _says + "\n"
    os.write(sys.stderr.fileno(), line.encode())
    os._exit(STATUS)
