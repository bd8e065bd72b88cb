"""Where own pictures come from: a folder with one folder a class, a CSV file, NumPy arrays.

Nothing is decoded here. What is found does not depend on the order of a file system.
"""

import collections
import csv
import lzma
import math
import os
import pathlib
import reprlib
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError, located, printable
from gsdd_jax.data.decode import PIL_MODES
from gsdd_jax.data.pictures import FORMATS

# Pictures by their names though Pillow reads none: to be named, not passed over.
UNREAD = {".heic", ".heif"}
LONGEST_NAME = 255  # characters, of a class
SHOWN = 3  # of a list in an error
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


class Item(NamedTuple):
    """One picture, not decoded yet."""

    name: str  # where it is from: a path below the folder or the list, a place in an array
    label: str  # the name of its class
    content: pathlib.Path | UInt8[np.ndarray, "h w c"]


class Found(NamedTuple):
    """What a source holds."""

    train: list[Item]
    test: list[Item]  # of arrays that come with some; else empty
    left_out: dict[str, int]  # files whose names are no pictures': how many by extension


def find(path: str | os.PathLike) -> Found:
    """The pictures of a folder, a .csv or a .npz file.

    A folder has one folder a class, in which pictures may lie at any depth; hidden files are
    passed over, links followed. A CSV file names the columns `path` (relative to the file) and
    `label` in its first line. Arrays are `images`, uint8 [n, h, w] or [n, h, w, c], and `labels`
    [n], and `test_images` and `test_labels` likewise where there are any.

    Raises UsageError for anything else.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    readers = {".csv": _csv, ".npz": _npz}
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: expected a folder, a .csv or a .npz file")
    with located(path):
        return readers[path.suffix.lower()](path)


def class_names(items: list[Item]) -> list[str]:
    """The different classes in the order of their labels: of numbers, else of the alphabet."""
    names = {item.label for item in items}
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def notes(found: Found) -> list[str]:
    """What was passed over, in a line."""
    if not found.left_out:
        return []
    kinds = ", ".join(
        f"{count} {printable(kind)}" for kind, count in sorted(found.left_out.items())
    )
    return [f"files that are no pictures were left out: {kinds}"]


def some(names: list[str]) -> str:
    """The first few of a list, for a line."""
    more = len(names) - SHOWN
    return ", ".join(map(printable, names[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def _folder(root: pathlib.Path) -> Found:
    folders = sorted(entry for entry in _visible(root) if entry.is_dir())
    names, extensions = [folder.name for folder in folders], _extensions()
    others = sorted(entry.name for entry in _visible(root) if not entry.is_dir())
    if stray := [name for name in others if pathlib.Path(name).suffix.lower() in extensions]:
        raise UsageError(
            f"{root}: expected one folder a class, got pictures that are in none: {some(stray)}"
        )
    if not folders:
        raise UsageError(f"{root}: expected one folder a class, got none")
    if {name.lower() for name in names} <= _SPLITS:
        raise UsageError(
            f"{root}: its folders ({some(names)}) are parts of a data set, expected classes; give "
            "one of them by --images and another by --test"
        )
    items, left_out, empty = [], collections.Counter(), []
    for folder in folders:
        label, before = _class_name(folder.name, f"folder {folder}"), len(items)
        for file in _files(folder, frozenset()):
            if file.suffix and file.suffix.lower() not in extensions:
                left_out[file.suffix.lower()] += 1
                continue
            name = file.relative_to(root).as_posix()
            items.append(Item(_plain(name), label, file))
        if len(items) == before:
            empty.append(folder.name)
    if empty:
        raise UsageError(f"{root}: no pictures in the class folders {some(empty)}; remove them")
    return Found(sorted(items, key=lambda item: item.name), [], dict(left_out))


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def _files(folder: pathlib.Path, above: frozenset[str]) -> Iterator[pathlib.Path]:
    """All files below, links followed but not in circles."""
    above |= {os.path.realpath(folder)}
    for entry in _visible(folder):
        if not entry.is_dir():
            yield entry
        elif os.path.realpath(entry) not in above:
            yield from _files(entry, above)


def _extensions() -> set[str]:
    """Of the names of picture files."""
    known = Image.registered_extensions().items()
    return {extension for extension, kind in known if kind in FORMATS} | UNREAD


def _csv(path: pathlib.Path) -> Found:
    items, lines = [], {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            fields = reader.fieldnames or []
            if "path" not in fields or "label" not in fields:
                raise UsageError(
                    "expected a first line that names the columns path and label, got "
                    f"{','.join(fields) or 'nothing'}"
                )
            for row in reader:
                where = f"line {reader.line_num}"
                if not row["path"] or not row["label"]:
                    raise UsageError(f"{where}: expected a path and a label")
                name = pathlib.PurePath(row["path"]).as_posix()
                if name in lines:
                    raise UsageError(f"{where}: {name} is in {lines[name]} already")
                lines[name] = where
                label = _class_name(row["label"], where)
                items.append(Item(_plain(name), label, path.parent / row["path"]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"expected a CSV file in UTF-8 ({error})") from None
    return Found(sorted(items, key=lambda item: item.name), [], {})


def _npz(path: pathlib.Path) -> Found:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            for name in getattr(loaded, "files", ()):
                memory.check(f"the array {name}", _claimed(loaded.zip, f"{name}.npy"), 3)
            arrays = {name: loaded[name] for name in getattr(loaded, "files", ())}
    except UsageError:
        raise
    # Of an encrypted file zipfile says so by RuntimeError, of an unknown compression by its child.
    except (
        OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error,
        lzma.LZMAError, MemoryError,
    ) as error:  # fmt: skip
        raise UsageError(f"expected arrays by name, without objects ({error})") from None
    with_test = "test_images" in arrays or "test_labels" in arrays
    return Found(_arrays(arrays, ""), _arrays(arrays, "test_") if with_test else [], {})


def _claimed(archive: zipfile.ZipFile, member: str) -> int:
    """Bytes of the array that a file of an archive says that it holds."""
    with archive.open(member) as file:
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"{member} is of version {version}")
        shape, _, dtype = readers[version](file)
        return math.prod(shape) * dtype.itemsize


def _arrays(arrays: dict[str, np.ndarray], prefix: str) -> list[Item]:
    image_key, label_key = f"{prefix}images", f"{prefix}labels"
    for key in (image_key, label_key):
        if key not in arrays:
            raise UsageError(f"expected an array {key}, got {', '.join(arrays) or 'none'}")
    images, labels = arrays[image_key], arrays[label_key]
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in PIL_MODES:
        raise UsageError(
            f"{image_key}: expected uint8 [n, h, w] or [n, h, w, c] of 1, 3 or 4 channels, got "
            f"{images.dtype} {list(arrays[image_key].shape)}"
        )
    if 0 in images.shape[1:]:
        raise UsageError(f"{image_key}: expected pixels, got images of {list(images.shape[1:])}")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuU":
        raise UsageError(
            f"{label_key}: expected {len(images)} whole numbers or texts, one an image, got "
            f"{labels.dtype} {list(labels.shape)}"
        )
    return [
        Item(f"{image_key}[{i}]", _class_name(str(label), f"{label_key}[{i}]"), image)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _class_name(name: str, where: str) -> str:
    """One way to write it on every system; TFDS keeps it as a line of a file."""
    plain = unicodedata.normalize("NFC", name).strip()
    if not plain or not plain.isprintable() or len(plain) > LONGEST_NAME:
        raise UsageError(
            f"{where}: expected a class name of 1 to {LONGEST_NAME} printable characters, got "
            f"{reprlib.repr(name)}"
        )
    return plain


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).encode(errors="replace").decode()
