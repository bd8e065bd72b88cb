"""Where an export goes: whole or not at all, and over nothing but an earlier one."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import write_json

MARK = "export.json"  # in every folder that is an export; only such a one is ever replaced


def refuse_existing(path: pathlib.Path, overwrite: bool, of_folder: bool) -> None:
    """Raises UsageError where something lies at `path` that is not to be replaced."""
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"{path}: there already; give another path, or --overwrite")
    if of_folder != path.is_dir() or (of_folder and not (path / MARK).is_file()):
        kind = f"a folder with {MARK}" if of_folder else "a file"
        raise UsageError(f"{path}: no earlier export, {kind}; give another path")


@contextlib.contextmanager
def folder(path: pathlib.Path, mark: dict[str, Any]) -> Iterator[pathlib.Path]:
    """A new folder to write into, which takes the place of `path` when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        made = work / "new"
        made.mkdir()
        yield made
        write_json(made / MARK, mark)
        if path.exists():
            os.rename(path, work / "old")
        os.rename(made, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
