"""Atomic writes, checked reads of others' files, locks, and the folder of caches."""

import contextlib
import errno
import json
import os
import pathlib
import re
import reprlib
import secrets
import stat
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from gsdd_jax.core.errors import InUseError, UsageError, UsageWarning, named

LOCK = ".lock"
JSON_LIMIT = 64 << 20  # bytes; a run's largest is a few megabytes
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # pathlib leaves one slash of two


def write_atomically(
    path: str | os.PathLike, content: bytes | Callable[[BinaryIO], object], mode: int = 0o666
) -> None:
    """Writes a file so that a crash at any moment leaves the old content or the new one.

    The file has the permissions `mode` from the start, less those of the process's mask. Missing
    folders are created. A link is replaced, not followed.

    Raises:
      UsageError: if no file can have that name.
      OSError: naming `path`, if it cannot be written or is a device, a FIFO or a folder; or naming
        what lies in place of a folder above it.
    """
    check_path(path)
    path = pathlib.Path(path)
    if not os.path.isdir(above := _above(path)):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EEXIST, "expected a regular file to replace, or nothing")
        _write(path, content, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def check_path(path: str | os.PathLike) -> None:
    """Raises UsageError for a text that cannot name a file, and for a URL."""
    if URL.match(os.fsdecode(path)):
        raise UsageError(f"{named(path)}: expected a path on this machine, got a URL")
    try:
        if b"\0" not in os.fsencode(path):
            return
    except UnicodeEncodeError:
        pass
    raise UsageError(f"{named(path)!r}: expected a path without NUL that the system can encode")


def _above(path: pathlib.Path) -> pathlib.Path:
    """Returns the nearest existing path at or above `path`; a root returns itself."""
    return next((folder for folder in path.parents if os.path.lexists(folder)), path)


def _write(path, content, mode) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # Default permissions: some file systems do not let them be changed.
        with open(temporary, "xb", opener=lambda of, flags: os.open(of, flags, mode)) as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: str | os.PathLike, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def check_ours(path: str | os.PathLike, what: str, is_ours: Callable[[pathlib.Path], bool]) -> None:
    """Raises UsageError unless `path` can be written and is free, or a regular file that `is_ours`
    accepts as `what`. Call it before the work."""
    check_path(path)
    path = pathlib.Path(path)
    try:
        there = stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        parent = _above(path)
        if not os.path.isdir(parent) or not os.access(parent, os.W_OK):
            raise UsageError(f"{path}: cannot be written; give another path") from None
        return
    except (OSError, ValueError) as error:  # a name too long, a file for a folder; a NUL
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be written ({reason}); give another path") from None
    if there != stat.S_IFREG:
        raise UsageError(f"{path}: not {what}, which is a regular file; give another path")
    ours = False
    with contextlib.suppress(UsageError):  # of a reader of our files
        ours = is_ours(path)
    if not ours:
        raise UsageError(f"{path}: not {what}; move it away, or give another path")


@contextlib.contextmanager
def open_regular(path: str | os.PathLike, what: str) -> Iterator[BinaryIO]:
    """Opens a regular file for reading; neither waits for nor reads a FIFO or a device.

    Raises UsageError, naming the path and calling it `what`, if there is no such file.
    """
    where = f"{named(path)}: expected {what}"
    with contextlib.ExitStack() as stack:
        try:
            # Checked before opening: to open a device may have effects.
            _refuse_others(os.stat(path).st_mode, where)
            file = stack.enter_context(open(path, "rb", opener=_without_waiting))
        except UsageError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise UsageError(f"{where} ({getattr(error, 'strerror', None) or error})") from None
        _refuse_others(os.fstat(file.fileno()).st_mode, where)  # replaced in the meantime
        yield file


def _refuse_others(mode: int, where: str) -> None:
    """Raises UsageError for anything but a regular file."""
    if stat.S_ISREG(mode):
        return
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    kinds = {"a folder": stat.S_ISDIR(mode), "a FIFO": stat.S_ISFIFO(mode), "a device": is_device}
    found = next((name for name, it_is in kinds.items() if it_is), "something else")
    raise UsageError(f"{where}, got {found}, no regular file")


def _without_waiting(path, flags) -> int:
    """Opens a path without waiting for the writer of a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def check_regular(path: str | os.PathLike, what: str) -> None:
    """Raises UsageError like `open_regular`, for a reader that opens the path itself."""
    with open_regular(path, what):
        pass


def check_tree(folder: str | os.PathLike) -> None:
    """Raises UsageError, naming the first, for any special file below a folder.

    A library that reads the folder would wait for a FIFO.
    """
    check_path(folder)
    for parent, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(parent, name)
            if path.exists() and not path.is_file():
                raise UsageError(f"{path}: expected regular files below {folder}")


def read_regular(path: str | os.PathLike, what: str, limit: int) -> bytes:
    """Reads a regular file of at most `limit` bytes.

    Raises UsageError, naming the path and calling it `what`, for anything else.
    """
    with open_regular(path, what) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            content = file.read(limit + 1) if size <= limit else b""
        except OSError as error:
            raise UsageError(f"{os.fspath(path)}: expected {what} ({error.strerror})") from None
    # Files of /proc report size 0, and a file may grow while it is read.
    if size > limit or len(content) > limit:
        found = max(size, len(content))
        raise UsageError(
            f"{os.fspath(path)}: expected {what} of at most {limit:,} bytes, got {found:,}"
        )
    return content


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text. Raises ValueError for invalid text, deep nesting, or
    integers of more than 64 bits."""
    try:
        value = json.loads(text, parse_int=_of_64_bits)
        json.dumps(value)  # deeper than reading it, as does whatever follows
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _of_64_bits(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"an integer of more than 64 bits, {reprlib.repr(digits)}")
    return int(digits)


def read_object(path: str | os.PathLike, what: str) -> dict[str, Any]:
    """Reads a JSON object. Raises UsageError, which calls the file `what`, for anything else."""
    content = read_regular(path, f"{what}, a JSON object", JSON_LIMIT)
    try:
        value = parse_json(content)
    except ValueError as error:
        raise UsageError(f"{path}: expected {what}, a JSON object ({error})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected {what}, a JSON object, got {type(value).__name__}")
    return value


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder unless it is there; raises UsageError if that is not possible."""
    check_path(path)
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: expected a folder ({error.strerror})") from None


@contextlib.contextmanager
def locked(directory: str | os.PathLike, taken: str) -> Iterator[None]:
    """Creates a directory and locks it for this process.

    The lock ends with the process, however that ends. On a file system without locks a warning says
    so, and nothing is locked.

    Raises InUseError with the message `taken` if another process holds the lock, UsageError if
    something else has the lock's name, and OSError if no file can be created.
    """
    import filelock  # sets are read without it

    check_path(directory)
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(directory, LOCK)
    # Checked before opening, since to open a device may have effects, and again once open.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(f"{path}: expected a regular file or no file; remove it")
    with open(path, "ab", opener=_not_through_a_link) as lock:
        if not stat.S_ISREG(os.fstat(lock.fileno()).st_mode):
            raise UsageError(f"{path}: expected a regular file or no file; remove it")
        try:
            # No FileLock: without system locks it writes a file that a kill would leave.
            if not filelock.lock_descriptor(lock.fileno(), blocking=False):
                raise InUseError(taken)
        except OSError as error:  # NFS, Lustre, EFS
            warnings.warn(
                f"{path}: this file system has no locks ({error.strerror}); make sure that no "
                "other process uses the folder at the same time",
                UsageWarning,
                stacklevel=2,
            )
        yield


def _not_through_a_link(path, flags) -> int:
    return _without_waiting(path, flags | getattr(os, "O_NOFOLLOW", 0))


def cache_dir() -> pathlib.Path | None:
    """Returns the folder of caches: $XDG_CACHE_HOME/gsdd_jax or ~/.cache/gsdd_jax.

    None, after a warning, without a home directory: nothing is cached then.
    """
    base = os.environ.get("XDG_CACHE_HOME") or home(".cache")
    if base is None:
        warnings.warn(
            "there is no home directory, so nothing is cached; set XDG_CACHE_HOME to a folder",
            UsageWarning,
            stacklevel=2,
        )
        return None
    return pathlib.Path(base, "gsdd_jax")


def home(name: str) -> pathlib.Path | None:
    """Returns a folder of the user's home directory; None without a home directory."""
    try:
        return pathlib.Path.home() / name
    except RuntimeError:  # no HOME, and a user without a name
        return None
