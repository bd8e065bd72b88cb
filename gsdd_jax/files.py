"""Files that are whole or not there, and where derived ones are kept."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import BinaryIO


def write_atomically(
    path: str | os.PathLike, content: bytes | Callable[[BinaryIO], object]
) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new one.

    `content` is the bytes, or a function that writes them to an open file. Missing folders are
    made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def cache_dir() -> pathlib.Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/gsdd_jax, or ~/.cache/gsdd_jax."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base, "gsdd_jax")
