"""Ends a run that is asked to stop after what it computes, so that nothing it has done is lost.

A loop says while it has something to lose (`able`) and looks between its calls (`asked`); whoever
is told to end the process asks (`ask`), from any thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Stopped(BaseException):
    """The run was asked to stop, and what it had done is on disk; no error."""


_asked = threading.Event()
_lock = threading.Lock()
_unsaved: Callable[[], bool] | None = None


@contextlib.contextmanager
def able(unsaved: Callable[[], bool]) -> Iterator[None]:
    """Announces a loop that looks at `asked`; `unsaved` says whether there is something to save.

    At its end all is. Raises Stopped there where it was asked to stop meanwhile.
    """
    global _unsaved
    _unsaved = unsaved
    try:
        yield
    finally:
        with _lock:
            _unsaved = None
        asked = _asked.is_set()
        _asked.clear()
    if asked:
        raise Stopped


def ask() -> bool:
    """Asks the loop to stop; False where there is none that has something to save."""
    with _lock:
        if _unsaved is None or not _unsaved():
            return False
        _asked.set()
        return True


def asked() -> bool:
    """Whether the loop was asked to stop; it saves and raises Stopped."""
    return _asked.is_set()
