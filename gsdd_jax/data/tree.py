"""Folders and the pictures in them, without what operating systems put there."""

import collections
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from gsdd_jax.data import parts
from gsdd_jax.data.pictures import FORMATS, is_picture

# Picture formats that Pillow cannot read: reported, not skipped.
UNREAD = {".heic", ".heif"}
# Folders of operating systems and file servers, in lower case; names with . or @ are skipped too.
_OF_SYSTEMS = {
    *("$recycle.bin", "#recycle", "#snapshot", "__macosx", "lost+found"),
    *("system volume information", "network trash folder", "temporary items"),
}


class Folder(NamedTuple):
    """Content of a folder, without skipped files."""

    path: pathlib.Path
    pictures: list[pathlib.Path]
    others: collections.Counter  # other files: count by extension
    folders: "list[Folder]"
    passed: collections.Counter  # skipped folders, here and below: count by name

    def below(self) -> "Iterator[Folder]":
        yield self
        for folder in self.folders:
            yield from folder.below()

    def count(self) -> int:
        return sum(len(folder.pictures) for folder in self.below())

    def are_parts(self) -> bool:
        return parts.are_parts({f.path.name: bool(f.pictures) for f in self.folders})


def read(path: pathlib.Path, extensions: set[str], above: frozenset[str] = frozenset()) -> Folder:
    """Reads a folder recursively, following links but not cycles through the folders `above`."""
    above |= {os.path.realpath(path)}
    pictures, others, folders, passed = [], collections.Counter(), [], collections.Counter()
    with os.scandir(path) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
        inner = path / entry.name
        if entry.is_dir():
            if entry.name[0] in ".@" or entry.name.lower() in _OF_SYSTEMS:
                passed[entry.name] += 1
            elif os.path.realpath(inner) not in above:
                folders.append(read(inner, extensions, above))
                passed += folders[-1].passed
        elif entry.name.startswith("."):
            continue
        elif (inner.suffix.lower() in extensions) if inner.suffix else is_picture(inner):
            pictures.append(inner)
        else:
            others[inner.suffix.lower() or "without an extension"] += 1
    return Folder(path, pictures, others, folders, passed)


def extensions() -> set[str]:
    """Returns the extensions of pictures, in lower case."""
    known = Image.registered_extensions().items()
    return {extension for extension, kind in known if kind in FORMATS} | UNREAD
