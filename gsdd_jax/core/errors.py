"""Exceptions and warnings that a user can act on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def printable(text: str) -> str:
    """Returns a foreign text as one terminal line; quotes unprintable characters as Python does."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class UsageError(ValueError):
    """Wrong flag, file, budget or setting.

    The message is one line: what is wrong, where, and what was expected. The launch scripts print
    it and exit with status 2.
    """

    def __init__(self, message: str = ""):
        super().__init__(printable(message))


class InUseError(UsageError):
    """Another process holds a resource; retry later."""


class UsageWarning(UserWarning):
    """A convenience is unavailable; the launch scripts print the message as one line."""


@contextlib.contextmanager
def located(where: str | os.PathLike) -> Iterator[None]:
    """Prefixes the message of a UsageError by `where` (a file, a field), once."""
    try:
        yield
    except UsageError as error:
        text = str(error).removeprefix(f"{where}: ")
        raise UsageError(f"{where}: {text}") from None
