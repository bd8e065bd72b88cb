"""Pictures or clips of a folder with one folder per class, optionally divided into parts."""

import collections
import pathlib

from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import clip_folders, parts, tree
from gsdd_jax.data.items import FLAGS, Found, Item, Labels, plain, some
from gsdd_jax.data.tree import Folder


def find(root: pathlib.Path, noun: str = "picture") -> Found:
    """Returns the pictures of a folder of classes, of parts with classes, or of classes with parts.

    Clips are video files and folders of frames. Raises UsageError if there are none, or if the
    layout is ambiguous.
    """
    top = clip_folders.read(root) if noun == "clip" else tree.read(root, tree.extensions())
    if top.pictures:
        stray = sorted(path.name for path in top.pictures)
        raise UsageError(
            f"{root}: expected one folder per class, got {noun}s that are in none: {some(stray)}"
        )
    if not top.folders:
        raise UsageError(f"{root}: expected one folder per class, got none")
    reader = _Reader(root, noun)
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

    def __init__(self, root: pathlib.Path, noun: str):
        self.root, self.noun = root, noun
        self.labels = Labels()
        self.deeper: list[str] = []  # pictures below the folder of their class
        self.said: list[str] = []

    def parts_of_classes(self, top: Folder) -> tuple[list[Item], list[Item]]:
        """Reads train/cat, train/dog, test/cat, ..."""
        by_name = {folder.path.name: folder for folder in top.folders}
        chosen = parts.choose(list(by_name))
        if chosen is None:
            raise self._unclear(top)
        used = [_once(by_name[name]) for name in chosen[:2] if name is not None]
        if any(folder.pictures or not folder.folders for folder in used):
            raise self._unclear(top)
        left_out = [f"{n} ({counted(by_name[n].count(), self.noun)})" for n in chosen.left_out]
        self._say(chosen.train, chosen.test, left_out)
        train, test = (*map(self.classes, used), [])[:2]
        return train, test

    def classes_of_parts(self, top: Folder) -> tuple[list[Item], list[Item]]:
        """Reads cat/train, cat/test, dog/train, ..."""
        if len(top.folders) == 1:
            inner = top.folders[0].path
            raise UsageError(
                f"{self.root}: its only folder {inner.name} has parts of a data set "
                f"({some(_names(top.folders[0]))}); give it itself, {FLAGS[self.noun]}={inner}"
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
        rest = [f"{n} ({counted(c, self.noun)})" for n, c in left_out.items()]
        self._say(chosen.train, chosen.test, rest)
        return found[chosen.train], found.get(chosen.test, [])

    def classes(self, folder: Folder) -> list[Item]:
        """Reads cat, dog, ..."""
        items, empty = [], []
        for of_class in folder.folders:
            found = self._class(of_class.path.name, of_class)
            items += found
            if not found:
                empty.append(of_class.path.name)
        if empty:
            raise UsageError(
                f"{folder.path}: no {self.noun}s in the class folders {some(empty)}; remove them"
            )
        return items

    def notes(self, top: Folder) -> list[str]:
        """Returns notes on skipped files, and on folders that may be misread."""
        notes = []
        if others := sum((folder.others for folder in top.below()), collections.Counter()):
            kinds = [f"{count} {kind}" for kind, count in sorted(others.items())]
            notes.append(f"files that are no {self.noun}s were left out: {', '.join(kinds)}")
        if top.passed:
            names = [f"{count} {name}" for name, count in sorted(top.passed.items())]
            notes.append(
                f"hidden folders and those of a system were passed over: {some(names, 10)}"
            )
        if self.deeper:
            notes.append(
                f"{counted(len(self.deeper), self.noun)} in folders of a class's folder, taken for "
                f"the class: {some(self.deeper)}"
            )
        return self.said + notes + self.labels.notes()

    def _class(self, name: str, folder: Folder) -> list[Item]:
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

    def _unclear(self, folder: Folder, names: list[str] | None = None) -> UsageError:
        return UsageError(
            f"{folder.path}: its folders ({some(names or _names(folder), 5)}) are parts of a data "
            f"set, expected classes; give a folder of classes by {FLAGS[self.noun]} and another by "
            "--test, or rename those that are classes"
        )


def _once(folder: Folder) -> Folder:
    """Unwraps a folder that holds only one of the same name, as some archives do."""
    while _names(folder) == [folder.path.name] and not folder.pictures:
        folder = folder.folders[0]
    return folder


def _names(folder: Folder) -> list[str]:
    return [inner.path.name for inner in folder.folders]


def _sorted(items: list[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.name)
