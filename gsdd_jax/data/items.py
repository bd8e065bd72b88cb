"""Pictures that a source of own pictures found, none of them decoded yet."""

import collections
import pathlib
import reprlib
import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gsdd_jax.core.errors import UsageError, printable

SHOWN = 3  # of a list in a line
LONGEST_NAME = 255  # characters, of a class


class Item(NamedTuple):
    """One picture."""

    name: str  # where it is from: a path below the folder or the list, a place in an array
    label: str  # the name of its class
    content: pathlib.Path | UInt8[np.ndarray, "h w c"]


class Found(NamedTuple):
    """What a source holds."""

    train: list[Item]
    test: list[Item]  # empty where the source does not say which they are
    notes: list[str]  # what the user may not expect, a line each


class Labels:
    """Class names by the labels that a source writes."""

    def __init__(self):
        self._written: dict[str, set[str]] = collections.defaultdict(set)

    def name(self, label: str, where: str) -> str:
        """One way to write it on every system; TFDS keeps it as a line of a file."""
        plain = unicodedata.normalize("NFC", label).strip()
        if not plain or not plain.isprintable() or len(plain) > LONGEST_NAME:
            raise UsageError(
                f"{where}: expected a class name of 1 to {LONGEST_NAME} printable characters, got "
                f"{reprlib.repr(label)}"
            )
        self._written[plain].add(label)
        return plain

    def notes(self) -> list[str]:
        """Different labels that became one class."""
        several = {name: sorted(w) for name, w in self._written.items() if len(w) > 1}
        return [
            f"labels that differ only in spaces or in how their accents are stored are one class, "
            f"{name}: {some([ascii(label) for label in several[name]])}"
            for name in sorted(several)
        ]


def plain(name: str) -> str:
    """A path or a place as it is stored, the same on every system."""
    return unicodedata.normalize("NFC", name).encode(errors="replace").decode()


def some(names: list[str], shown: int = SHOWN) -> str:
    """The first few of a list, for a line."""
    more = len(names) - shown
    return ", ".join(map(printable, names[:shown])) + (f" and {more} more" if more > 0 else "")
