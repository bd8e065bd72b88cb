"""Pictures of a folder with one folder per class, optionally divided into parts."""

import collections
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import parts
from gsdd_jax.data.items import Found, Item, Labels, plain, some
from gsdd_jax.data.pictures import FORMATS, is_picture

# Picture formats that Pillow cannot read: reported, not skipped.
UNREAD = {".heic", ".heif"}
# Folders of operating systems and file servers, in lower case; names with . or @ are skipped too.
_OF_SYSTEMS = {
    *("$recycle.bin", "#recycle", "#snapshot", "__macosx", "lost+found"),
    *("system volume information", "network trash folder", "temporary items"),
}


class _Folder(NamedTuple):
    """Content of a folder, without skipped files."""

    path: pathlib.Path
    pictures: list[pathlib.Path]
    others: collections.Counter  # other files: count by extension
    folders: "list[_Folder]"
    passed: collections.Counter  # skipped folders, here and below: count by name

    def below(self) -> "Iterator[_Folder]":
        yield self
        for folder in self.folders:
            yield from folder.below()

    def count(self) -> int:
        return sum(len(folder.pictures) for folder in self.below())

    def are_parts(self) -> bool:
        return parts.are_parts({f.path.name: bool(f.pictures) for f in self.folders})


def find(root: pathlib.Path) -> Found:
    """Returns the pictures of a folder of classes, of parts with classes, or of classes with parts.

    Raises UsageError if there are none, or if the layout is ambiguous.
    """
    top = _read(root, _extensions(), frozenset())
    if top.pictures:
        stray = sorted(path.name for path in top.pictures)
        raise UsageError(
            f"{root}: expected one folder per class, got pictures that are in none: {some(stray)}"
        )
    if not top.folders:
        raise UsageError(f"{root}: expected one folder per class, got none")
    reader = _Reader(root)
    in_classes: dict[str, bool] = {}
    for part in (part for folder in top.folders for part in folder.folders):
        in_classes[part.path.name] = in_classes.get(part.path.name, False) or bool(part.pictures)
    if top.are_parts():
        train, test = reader.parts_of_classes(top)
    elif parts.are_parts(in_classes):
        train, test = reader.classes_of_parts(top)
    else:
        train, test = reader.classes(top), []
    return Found(_sorted(train), _sorted(test), reader.notes(top))


class _Reader:
    """Turns folders into items, and collects notes for the user."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.labels = Labels()
        self.deeper: list[str] = []  # pictures below the folder of their class
        self.said: list[str] = []

    def parts_of_classes(self, top: _Folder) -> tuple[list[Item], list[Item]]:
        """Reads train/cat, train/dog, test/cat, ..."""
        by_name = {folder.path.name: folder for folder in top.folders}
        chosen = parts.choose(list(by_name))
        if chosen is None:
            raise self._unclear(top)
        used = [_once(by_name[name]) for name in chosen[:2] if name is not None]
        if any(folder.pictures or not folder.folders for folder in used):
            raise self._unclear(top)
        left_out = [f"{n} ({counted(by_name[n].count(), 'picture')})" for n in chosen.left_out]
        self._say(chosen.train, chosen.test, left_out)
        train, test = (*map(self.classes, used), [])[:2]
        return train, test

    def classes_of_parts(self, top: _Folder) -> tuple[list[Item], list[Item]]:
        """Reads cat/train, cat/test, dog/train, ..."""
        if len(top.folders) == 1:
            inner = top.folders[0].path
            raise UsageError(
                f"{self.root}: its only folder {inner.name} has parts of a data set "
                f"({some(_names(top.folders[0]))}); give it itself, --images={inner}"
            )
        names = sorted({name for folder in top.folders for name in _names(folder)})
        chosen = parts.choose(names)
        if chosen is None or any(folder.pictures for folder in top.folders):
            raise self._unclear(top, names)
        found, left_out = {name: [] for name in names}, collections.Counter()
        for folder in top.folders:
            for part in folder.folders:
                if part.count() != len(part.pictures):
                    raise self._unclear(top, names)
                if part.path.name in chosen.left_out:
                    left_out[part.path.name] += part.count()
                else:
                    found[part.path.name] += self._class(folder.path.name, part)
        rest = [f"{n} ({counted(c, 'picture')})" for n, c in left_out.items()]
        self._say(chosen.train, chosen.test, rest)
        return found[chosen.train], found.get(chosen.test, [])

    def classes(self, folder: _Folder) -> list[Item]:
        """Reads cat, dog, ..."""
        items, empty = [], []
        for of_class in folder.folders:
            found = self._class(of_class.path.name, of_class)
            items += found
            if not found:
                empty.append(of_class.path.name)
        if empty:
            raise UsageError(
                f"{folder.path}: no pictures in the class folders {some(empty)}; remove them"
            )
        return items

    def notes(self, top: _Folder) -> list[str]:
        """Returns notes on skipped files, and on folders that may be misread."""
        notes = []
        if others := sum((folder.others for folder in top.below()), collections.Counter()):
            kinds = [f"{count} {kind}" for kind, count in sorted(others.items())]
            notes.append(f"files that are no pictures were left out: {', '.join(kinds)}")
        if top.passed:
            names = [f"{count} {name}" for name, count in sorted(top.passed.items())]
            notes.append(
                f"hidden folders and those of a system were passed over: {some(names, 10)}"
            )
        if self.deeper:
            notes.append(
                f"{counted(len(self.deeper), 'picture')} in folders of a class's folder, taken for "
                f"the class: {some(self.deeper)}"
            )
        return self.said + notes + self.labels.notes()

    def _class(self, name: str, folder: _Folder) -> list[Item]:
        label, items = self.labels.name(name, f"folder {folder.path}"), []
        for inner in folder.below():
            if inner.are_parts():
                raise self._unclear(inner)
            found = [plain(path.relative_to(self.root).as_posix()) for path in inner.pictures]
            items += [Item(n, label, p) for n, p in zip(found, inner.pictures, strict=True)]
            if inner is not folder:
                self.deeper += sorted(found)
        return items

    def _say(self, train: str, test: str | None, left_out: list[str]) -> None:
        tested = f"folder {test} for testing" if test else "none for testing"
        rest = f"; left out: {', '.join(left_out)}" if left_out else ""
        self.said.append(f"folder {train} is for training, {tested}{rest}")

    def _unclear(self, folder: _Folder, names: list[str] | None = None) -> UsageError:
        return UsageError(
            f"{folder.path}: its folders ({some(names or _names(folder), 5)}) are parts of a data "
            "set, expected classes; give a folder of classes by --images and another by --test, "
            "or rename those that are classes"
        )


def _read(path: pathlib.Path, extensions: set[str], above: frozenset[str]) -> _Folder:
    """Reads a folder recursively, following links but not cycles."""
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
                folders.append(_read(inner, extensions, above))
                passed += folders[-1].passed
        elif entry.name.startswith("."):
            continue
        elif (inner.suffix.lower() in extensions) if inner.suffix else is_picture(inner):
            pictures.append(inner)
        else:
            others[inner.suffix.lower() or "without an extension"] += 1
    return _Folder(path, pictures, others, folders, passed)


def _once(folder: _Folder) -> _Folder:
    """Unwraps a folder that holds only one of the same name, as some archives do."""
    while _names(folder) == [folder.path.name] and not folder.pictures:
        folder = folder.folders[0]
    return folder


def _names(folder: _Folder) -> list[str]:
    return [inner.path.name for inner in folder.folders]


def _sorted(items: list[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.name)


def _extensions() -> set[str]:
    known = Image.registered_extensions().items()
    return {extension for extension, kind in known if kind in FORMATS} | UNREAD
