"""Where an export goes: over nothing but an earlier one."""

from __future__ import annotations

import pathlib
import zipfile

from gsdd_jax.core import swap
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_ours, check_regular
from gsdd_jax.formats.transforms import FORMAT

MARK = "export.json"  # in every folder that is an export
FILE_MARK = "gsdd-jax export"  # in every file that is one
WHAT = "an earlier export"


def refuse_existing(path: pathlib.Path, overwrite: bool, of_folder: bool) -> None:
    """Raises UsageError where something lies at `path` that is not to be replaced."""
    if of_folder:
        swap.recover(path)
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise UsageError(f"{path}: there already; give another path, or --overwrite")
    if of_folder:
        swap.check_ours(path, MARK, WHAT)
        return
    check_ours(path, WHAT, _is_marked)


def _is_marked(path: pathlib.Path) -> bool:
    """Whether a file says of itself that it is an export: safetensors or a zip archive."""
    import safetensors

    check_regular(path, WHAT)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return not {FILE_MARK, FORMAT}.isdisjoint(file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        pass
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == FILE_MARK.encode()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
