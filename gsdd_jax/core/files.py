"""Files that are whole or not there, and where derived ones are kept."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from gsdd_jax.core.errors import InUseError, UsageError
from gsdd_jax.core.options import parse_json

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None


def write_atomically(
    path: str | os.PathLike, content: bytes | Callable[[BinaryIO], object]
) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new one.

    `content` is the bytes, or a function that writes them to an open file. Missing folders are
    made. Raises OSError, which names `path`, where it cannot be written.
    """
    path = pathlib.Path(path)
    try:
        _write(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def _write(path, content) -> None:
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


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes plain values as a JSON file, atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_object(path: str | os.PathLike, what: str) -> dict[str, Any]:
    """The JSON object in a file. Raises UsageError, calling it `what`, where it holds none."""
    try:
        value = parse_json(pathlib.Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: expected {what}, a JSON object ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected {what}, a JSON object, got {type(value).__name__}")
    return value


@contextlib.contextmanager
def locked(directory: str | os.PathLike, taken: str) -> Iterator[None]:
    """Makes a directory and holds it for this process; raises InUseError(taken) where another one
    has it.

    The lock ends with the process, however that ends. Raises OSError where no file can be made.
    """
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    with open(pathlib.Path(directory, ".lock"), "w") as lock:
        try:
            _lock(lock.fileno())
        except BlockingIOError:
            raise InUseError(taken) from None
        yield


def _lock(descriptor: int) -> None:
    """Locks an open file until it is closed; raises BlockingIOError where another process has."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(error.errno, error.strerror) from None


def cache_dir() -> pathlib.Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/gsdd_jax, or ~/.cache/gsdd_jax."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base, "gsdd_jax")
