"""Ends a command on Ctrl-C with one line and status 130, at any moment.

Python's own handler waits for the main thread, which may be compiling. Imports can swallow it, and
it unwinds the interpreter under XLA's threads. All writes are atomic, so an immediate stop is safe.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

STATUS = 130
RESUMES = "; the same command resumes from the last checkpoint"

_says = "interrupted"


def says(more: str) -> None:
    """Sets the text printed after "interrupted"."""
    global _says
    _says = f"interrupted{more}"


def install() -> None:
    """Makes SIGINT end the process; call it before other threads exist.

    A process that was started to ignore SIGINT (in a script's background) still ignores it.
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
