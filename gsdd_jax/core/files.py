"""Files that are whole or not there, and where derived ones are kept."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from gsdd_jax.core.errors import InUseError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

JSON_LIMIT = 64 << 20  # bytes; a run's largest is a few megabytes


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


@contextlib.contextmanager
def open_regular(path: str | os.PathLike, what: str) -> Iterator[BinaryIO]:
    """Opens a regular file for reading; a FIFO or a device is neither waited for nor read.

    Raises UsageError, which names the path and calls it `what`, where there is no such file.
    """
    named = f"{os.fspath(path)}: expected {what}"
    with contextlib.ExitStack() as stack:
        try:
            # Asked first, for a device may do something when it is opened.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise UsageError(f"{named}, got no regular file")
            file = stack.enter_context(open(path, "rb", opener=_without_waiting))
        except UsageError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise UsageError(f"{named} ({getattr(error, 'strerror', None) or error})") from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # replaced in the meantime
            raise UsageError(f"{named}, got no regular file")
        yield file


def _without_waiting(path, flags) -> int:
    """Opens a FIFO without a writer at once; a regular file is read as ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_regular(path: str | os.PathLike, what: str, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes; more are never read.

    Raises UsageError, which names the path and calls it `what`, for anything else.
    """
    with open_regular(path, what) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = file.read(limit + 1) if size <= limit else b""
        except OSError as error:
            raise UsageError(f"{os.fspath(path)}: expected {what} ({error.strerror})") from None
    # A file of /proc has a size of 0 and content, and one may grow while it is read.
    if size > limit or len(content) > limit:
        found = max(size, len(content))
        raise UsageError(
            f"{os.fspath(path)}: expected {what} of at most {limit:,} bytes, got {found:,}"
        )
    return content


def read_object(path: str | os.PathLike, what: str) -> dict[str, Any]:
    """The JSON object in a file. Raises UsageError, calling it `what`, where it holds none."""
    content = read_regular(path, f"{what}, a JSON object", JSON_LIMIT)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
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
