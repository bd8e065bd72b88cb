"""Delays KeyboardInterrupt while JAX is on the stack.

JAX's callback of the garbage collector swallows it, and a process that ends in the middle of a
compilation may crash.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

DELAYING = {"jax", "jaxlib"}  # packages
WAITS = b"interrupted: ends after the running call; interrupt again to end at once\n"
_noted = False


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Delays Ctrl-C within JAX to the next `check`, at the latest to the end of the block.

    A second one raises at once. Changes nothing in other threads than the main one, or where the
    program has a handler of its own.
    """
    global _noted
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _noted = False
    signal.signal(signal.SIGINT, _handle)
    try:
        yield
        check()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _noted = False


def noted() -> bool:
    """Returns whether `check` will raise: a loop can save first."""
    return _noted


def check() -> None:
    """Raises KeyboardInterrupt if there was one; loops call it between their steps."""
    global _noted
    if _noted:
        _noted = False
        raise KeyboardInterrupt


def _handle(received: int, frame: FrameType | None) -> None:
    global _noted
    again, _noted = _noted, _is_within(frame)
    if again or not _noted:
        _noted = False
        raise KeyboardInterrupt
    os.write(2, WAITS)  # no buffered stream: its lock may be held


def _is_within(frame: FrameType | None) -> bool:
    """Returns whether a function of `DELAYING` is on the stack."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in DELAYING:
            return True
        frame = frame.f_back
    return False
