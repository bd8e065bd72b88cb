"""Stops a run on request once its work is saved.

A loop announces work to be saved (`able`) and polls between calls (`asked`); whoever has to end the
process asks (`ask`), from any thread.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator


class Stopped(BaseException):
    """Signals that a run stopped on request with its work saved; not an error."""


_asked = threading.Event()
_lock = threading.Lock()
_unsaved: Callable[[], bool] | None = None


@contextlib.contextmanager
def able(unsaved: Callable[[], bool]) -> Iterator[None]:
    """Announces a loop that polls `asked`; `unsaved` tells whether it has, or computes, such work.

    After the loop, which has saved its work, raises Stopped if it was asked to stop. Within it, a
    loop of a part of its work may announce itself in its place. If a loop fails, the request stays
    for the next one.
    """
    global _unsaved
    before, _unsaved = _unsaved, unsaved
    try:
        yield
        if asked():
            raise Stopped
    except Stopped:
        _asked.clear()
        raise
    finally:
        with _lock:
            _unsaved = before


def ask() -> bool:
    """Asks the loop to stop; returns False if there is none with unsaved work."""
    with _lock:
        if _unsaved is None or not _unsaved():
            return False
        _asked.set()
        return True


def asked() -> bool:
    """Returns whether the loop was asked to stop; it then saves and raises Stopped."""
    return _asked.is_set()
