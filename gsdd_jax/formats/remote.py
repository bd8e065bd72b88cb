"""Distilled sets at URLs, read through fsspec."""

import contextlib
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from gsdd_jax.core import memory
from gsdd_jax.core.errors import LONGEST_PATH, UsageError, located, named, printable

LARGEST = 1 << 30  # bytes
READ = re.compile(r"([a-z]\w*::)*([a-z][a-z0-9+.-]*://|data:)")
HUB = re.compile(r"hf://(?:datasets/)?([\w.-]+/[\w.@-]+)/?")


def is_url(path: Any) -> bool:
    """Returns whether fsspec reads a path: a URL, data:..., or a chain such as zip::https://..."""
    return isinstance(path, str) and READ.match(path) is not None


def place(url: str, name: str) -> str:
    """Returns the URL of a set; a Hub's repository hf://ORGANIZATION/NAME has it in `name`."""
    found = HUB.fullmatch(url)
    return f"hf://datasets/{found[1]}/{name}" if found else url


@contextlib.contextmanager
def fetched(url: str) -> Iterator[pathlib.Path]:
    """Yields a local copy of a file, removed afterwards.

    Raises UsageError if it cannot be read, or is larger than `LARGEST`.
    """
    with tempfile.TemporaryDirectory(prefix="gsdd-") as folder:
        path = pathlib.Path(folder, "fetched")
        with located(named(url)):
            path.write_bytes(_read(url))
        yield path


def _read(url: str) -> bytes:
    try:
        import fsspec

        with fsspec.open(url, "rb") as file:
            content = file.read(LARGEST + 1)
    except Exception as error:  # every file system has errors of its own
        said = printable(f"{type(error).__name__}: {error}".replace(url, "it"), LONGEST_PATH)
        raise UsageError(
            f"cannot be read ({said}); expected the URL of a set, a network, and the package that "
            "fsspec names for it"
        ) from None
    if len(content) > LARGEST:
        raise UsageError(f"expected at most {memory.shown(LARGEST)}, got a larger file")
    return content
