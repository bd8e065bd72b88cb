"""Exceptions for what a user can put right."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

LONGEST = 1500  # characters of a line: a few paths and commands
_FIRST = 1000  # of them before what is left out of a longer one


def printable(text: str) -> str:
    """A text of others as one line for a terminal: what is not printable, such as a newline or an
    escape, is quoted as Python quotes it; of a long one the middle is left out."""
    return _shortened("".join(c if c.isprintable() else repr(c)[1:-1] for c in _shortened(text)))


def _shortened(text: str) -> str:
    """What was wrong is said first, and what was expected last."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:_FIRST]} ... {text[len(text) - (LONGEST - _FIRST - 5) :]}"


def counted(count: int, noun: str) -> str:
    """How many of something, for a line: "1 image", "2,000 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


class UsageError(ValueError):
    """A wrong flag, file, budget or setting.

    Its message is one line of at most `LONGEST` characters, whatever it quotes, that says what was
    wrong, where, and what was expected. The launch scripts print that line and exit with status 2.
    """

    def __init__(self, message: str = ""):
        super().__init__(printable(message))


class InUseError(UsageError):
    """Another process has what is needed; later it is free."""


class UsageWarning(UserWarning):
    """A convenience that is not to be had here; the launch scripts print it as one line."""


@contextlib.contextmanager
def located(where: str | os.PathLike) -> Iterator[None]:
    """Puts `where` something is wrong (a file, a field) before a UsageError, once."""
    try:
        yield
    except UsageError as error:
        text = str(error).removeprefix(f"{where}: ")
        raise UsageError(f"{where}: {text}") from None
