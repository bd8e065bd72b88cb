"""Clips of a folder: video files, and folders of frames."""

import pathlib
import re

from gsdd_jax.core.errors import UsageError
from gsdd_jax.data import tree, videos
from gsdd_jax.data.items import some


def read(root: pathlib.Path) -> tree.Folder:
    """Reads a folder recursively, with clips in place of pictures.

    A folder of pictures is one clip. Raises UsageError for pictures next to video files or to
    folders of clips.
    """
    return _of_clips(tree.read(root, tree.extensions() | videos.FORMATS.keys()))


def frames(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the pictures of a clip in natural order: 2.png before 10.png."""
    return sorted(tree.read(path, tree.extensions()).pictures, key=_natural)


def _of_clips(folder: tree.Folder) -> tree.Folder:
    films, stills = _sorted_out(folder)
    clips, folders = [], []
    for inner in folder.folders:
        if _is_clip(inner):
            clips.append(inner.path)
        else:
            folders.append(_of_clips(inner))
    if stills:
        raise UsageError(
            f"{folder.path}: expected folders of frames and video files, got {some(stills)} next "
            "to others; move the frames of a clip into a folder of their own"
        )
    return folder._replace(pictures=sorted(films + clips), folders=folders)


def _is_clip(folder: tree.Folder) -> bool:
    films, stills = _sorted_out(folder)
    return bool(stills) and not films and not any(inner.count() for inner in folder.folders)


def _sorted_out(folder: tree.Folder) -> tuple[list[pathlib.Path], list[str]]:
    """Returns the video files of a folder, and the names of its pictures."""
    films = [path for path in folder.pictures if path.suffix.lower() in videos.FORMATS]
    return films, [path.name for path in folder.pictures if path not in films]


def _natural(path: pathlib.Path) -> tuple:
    """Returns a key that orders numbers in names by their values."""
    pieces = re.split(r"([0-9]+)", path.name)
    return tuple(int(p) if i % 2 else p for i, p in enumerate(pieces)), path.name
