"""Checks of an export's path: only earlier exports may be replaced."""

import contextlib
import os
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gsdd_jax.core import swap
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.files import check_ours
from gsdd_jax.formats.distilled import DistilledSet
from gsdd_jax.formats.file import has_header, metadata
from gsdd_jax.formats.foreign import MARK  # in every exported folder
from gsdd_jax.formats.transforms import FORMAT

FILE_MARK = "gsdd-jax export"  # in every exported file
WHAT, SET = "an earlier export", "an earlier distilled set"


class Pictures(NamedTuple):
    """An export of pictures or clips: their pixels, and what is known of them."""

    pixels: Iterator[np.ndarray]  # uint8 [*t, h, w, c]
    labels: np.ndarray
    names: Sequence[str] | None  # of the classes
    image_shape: tuple[int, ...]  # of clips with the number of frames
    soft: np.ndarray | None  # class probabilities [m, k]
    distilled: DistilledSet

    @property
    def is_clips(self) -> bool:
        return len(self.image_shape) == 4


def refuse_existing(
    path: pathlib.Path,
    overwrite: bool,
    of_folder: bool,
    what: str = WHAT,
    sources: Sequence[str] = (),
) -> None:
    """Raises UsageError if `path` exists and must not be replaced; by default only exports may.

    The files `sources` that the result is made of are never replaced.
    """
    if of_folder:
        swap.recover(path)
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise UsageError(f"{path}: exists already; give another path, or --overwrite")
    for source in filter(os.path.exists, sources):
        around = (place for place in pathlib.Path(source).resolve().parents if of_folder)
        if path.exists() and any(path.samefile(place) for place in (source, *around)):
            raise UsageError(f"{path}: expected another place than that of {source}, an input")
    if of_folder:
        swap.check_ours(path, MARK, WHAT)
        return
    check_ours(path, what, has_header if what == SET else _is_export)


def _is_export(path: pathlib.Path) -> bool:
    """Returns whether a file, safetensors or a zip archive, is an export by its metadata."""
    with contextlib.suppress(UsageError):
        return not metadata(path).keys().isdisjoint((FILE_MARK, FORMAT))
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment.decode(errors="ignore") in (FILE_MARK, FORMAT)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
