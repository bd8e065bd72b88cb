"""Exceptions and warnings that a user can act on."""

import contextlib
import os
from collections.abc import Collection, Iterator

LONGEST = 1500  # characters of a line: a few paths and commands
LONGEST_PATH = 300  # characters of a path in a line


def printable(text: str, longest: int = LONGEST) -> str:
    """Returns a foreign text as one terminal line of at most `longest` characters.

    Quotes unprintable characters as Python does, and leaves out the middle of a long text.
    """
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in _shortened(text, longest))
    return _shortened(plain, longest)


def _shortened(text: str, longest: int) -> str:
    """Shortens a text in its middle: the fault is named first, the expectation last."""
    if len(text) <= longest:
        return text
    first = longest * 2 // 3
    return f"{text[:first]} ... {text[len(text) - (longest - first - 5) :]}"


def named(path: str | os.PathLike) -> str:
    """Returns a path or a URL as a message names it, a very long one without its middle."""
    return printable(os.fspath(path), LONGEST_PATH)


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun, such as "1 image" or "2,000 classes"."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def ranged(counts: Collection[int], noun: str = "") -> str:
    """Returns the least and the largest number with a noun, such as "6 to 16 images"."""
    least, most = min(counts), max(counts)
    last = counted(most, noun) if noun else f"{most:,}"
    return f"{least:,} to {last}" if least < most else last


class UsageError(ValueError):
    """Wrong data, file, field of a config or flag.

    The message is one line of at most `LONGEST` characters: what is wrong, where, and what was
    expected. The launch scripts print it and exit with status 2.
    """

    def __init__(self, message: str = ""):
        super().__init__(printable(message))


class DivergedError(UsageError):
    """A network diverged in training."""


class InUseError(UsageError):
    """Another process holds a resource; retry later."""


class UsageWarning(UserWarning):
    """A convenience is unavailable; the launch scripts print the message as one line."""


@contextlib.contextmanager
def located(where: str | os.PathLike) -> Iterator[None]:
    """Prefixes the message of a UsageError with `where` (a file or a field), unless it is there."""
    try:
        yield
    except UsageError as error:
        text = str(error).removeprefix(f"{where}: ")
        raise type(error)(f"{where}: {text}") from None
