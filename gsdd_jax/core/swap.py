"""Writes folders as a whole; each replaces only an earlier one of its kind.

`.NAME.replacing` next to PATH holds the new folder during writing, and the old one between two
renames. If a process ends in between, the old folder is restored: at once, or by the next process
that looks for PATH.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from gsdd_jax.core.errors import InUseError, UsageError
from gsdd_jax.core.files import LOCK, check_path, locked, read_object, write_json

FILES = "files"  # in a mark: all files written, by name, as `_content` describes them
EDITED = 1 << 20  # bytes; larger files are known by their size


@contextlib.contextmanager
def folder(
    path: pathlib.Path, mark: str, about: Mapping[str, Any], what: str
) -> Iterator[pathlib.Path]:
    """Yields a new folder to write into, which replaces `path` at the end.

    The folder gets a file `mark` with `about` and a digest of every file. On an error `path` stays
    as it was.

    Raises UsageError as `check_ours`, or if another process writes the same folder, and OSError if
    it cannot be written.
    """
    with _held(path) as work:
        made = work / "new"
        made.mkdir()
        try:
            yield made
            written = {name: _content(made / name) for name in _files(made)}
            write_json(made / mark, {**about, FILES: written})
        except OSError as error:
            if error.filename and not str(error.filename).startswith(str(work)):
                raise  # something else's
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        if os.path.lexists(path):
            check_ours(path, mark, what)
            os.rename(path, work / "old")
        try:
            os.rename(made, path)
        except OSError as error:  # names the destination
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def check_ours(path: pathlib.Path, mark: str, what: str) -> None:
    """Raises UsageError unless `path` is a folder made by `folder`, with nothing added or edited.

    `what` describes it in the message.
    """
    if path.is_symlink() or not path.is_dir():
        raise UsageError(f"{path}: not {what}, which is a folder; give another name")
    if not (path / mark).is_file():
        raise UsageError(f"{path}: not {what}: no {mark} in it; move it away, or give another name")
    known = read_object(path / mark, f"the mark of {what}").get(FILES)
    known = known if isinstance(known, dict) else {}
    emptied = {above.as_posix() for name in known for above in pathlib.PurePath(name).parents}
    for name in _files(path):
        if name == mark or name in emptied or known.get(name, "") == _content(path / name):
            continue
        fault = f"edited since {what} was written" if name in known else f"not a file of {what}"
        raise UsageError(f"{path / name}: {fault}; move it away, or give another name")


def recover(path: pathlib.Path) -> None:
    """Restores the folder that a killed process had moved from `path`; called before reading.

    Does nothing if another process writes the folder, or if nothing can be written.
    """
    if _is_work(_work_of(path)):
        with contextlib.suppress(InUseError, OSError), _held(path):
            pass


@contextlib.contextmanager
def _held(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder next to `path`, locked for this process, and removes it at the end."""
    work = _work_of(path)
    if work.is_symlink() or (work.exists() and not _is_work(work) and any(work.iterdir())):
        raise UsageError(f"{work}: exists; move it away")
    with locked(work, f"{path}: another process writes it; wait for it"):
        _settle(path, work)
        try:
            yield work
        finally:
            _settle(path, work)
            with contextlib.suppress(OSError):
                (work / LOCK).unlink()
                work.rmdir()


def _settle(path: pathlib.Path, work: pathlib.Path) -> None:
    """Moves the old folder back unless it was replaced, and deletes the rest."""
    old = work / "old"
    if old.exists() and not path.exists():
        try:
            os.rename(old, path)
        except OSError as error:
            # Kept, since it may be the only copy.
            reason = f"{error.strerror}; what was there is in {old}"
            raise OSError(error.errno, reason, str(path)) from None
    for rest in (work / "new", old):
        shutil.rmtree(rest, ignore_errors=True)


def _work_of(path: pathlib.Path) -> pathlib.Path:
    check_path(path)
    return path.absolute().with_name(f".{path.absolute().name}.replacing")


def _is_work(work: pathlib.Path) -> bool:
    return (work / LOCK).is_file() and not work.is_symlink()


def _files(folder: pathlib.Path) -> list[str]:
    """Lists all files, links and empty folders below a folder, as relative paths."""
    found = []
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [pathlib.Path(parent, name) for name in names + links]
        if not folders and not names:
            found.append(pathlib.Path(parent))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _content(path: pathlib.Path) -> str | int | None:
    """Returns the SHA-256 of a file, or its size if it is large; None for anything else."""
    there = os.lstat(path)
    if not stat.S_ISREG(there.st_mode):
        return None
    if there.st_size > EDITED:
        return there.st_size
    return hashlib.sha256(path.read_bytes()).hexdigest()
