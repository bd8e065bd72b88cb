"""Hides libraries' messages while pictures are decoded; errors are still raised."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hides Pillow's warnings, and libraries' output to the descriptor of standard error. Python's
    own `sys.stderr` still works."""
    with warnings.catch_warnings(), _without_descriptor():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _without_descriptor() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    stream = sys.stderr
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, kept)
        if _is_standard(stream):
            stream.flush()
            sys.stderr = stack.enter_context(os.fdopen(os.dup(kept), "w", buffering=1))
            stack.callback(setattr, sys, "stderr", stream)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        stack.callback(os.dup2, kept, 2)
        yield


def _is_standard(stream) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):  # no stream, or one of a notebook or a test
        return False
