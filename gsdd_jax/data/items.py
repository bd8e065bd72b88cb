"""Pictures or clips that a source provides, not decoded yet."""

import collections
import pathlib
import reprlib
import unicodedata
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gsdd_jax.core.errors import UsageError, printable

SHOWN = 3  # list entries per line
FLAGS = {"picture": "--images", "clip": "--clips"}  # that give pictures or clips
LONGEST_NAME = 255  # characters of a class name


class Item(NamedTuple):
    name: str  # path below the folder or list, or index in an array
    label: str  # class name
    content: pathlib.Path | UInt8[np.ndarray, "h w c"]


class Found(NamedTuple):
    train: list[Item]
    test: list[Item]  # empty if the source has no test pictures
    notes: list[str]  # surprises for the user, one line each


class Labels:
    """Class names by the labels that a source writes."""

    def __init__(self):
        self._written: dict[str, set[str]] = collections.defaultdict(set)

    def name(self, label: str, where: str) -> str:
        """Returns `label` in its canonical spelling; TFDS stores it as a line of a file."""
        plain = unicodedata.normalize("NFC", label).strip()
        if not plain or not plain.isprintable() or len(plain) > LONGEST_NAME:
            raise UsageError(
                f"{where}: expected a class name of 1 to {LONGEST_NAME} printable characters, got "
                f"{reprlib.repr(label)}"
            )
        self._written[plain].add(label)
        return plain

    def notes(self) -> list[str]:
        """Returns notes on different labels that became one class."""
        several = {name: sorted(w) for name, w in self._written.items() if len(w) > 1}
        return [
            f"labels that differ only in spaces or in how their accents are stored are one class, "
            f"{name}: {some([ascii(label) for label in several[name]])}"
            for name in sorted(several)
        ]


def plain(name: str) -> str:
    """Returns a path or an index in the same spelling on every system."""
    return unicodedata.normalize("NFC", name).encode(errors="replace").decode()


def some(names: list[str], shown: int = SHOWN) -> str:
    """Returns the first few of a list, in one line."""
    more = len(names) - shown
    return ", ".join(map(printable, names[:shown])) + (f" and {more} more" if more > 0 else "")
