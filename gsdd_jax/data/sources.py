"""Sources of custom pictures: a folder with one folder per class, a list, or NumPy arrays.

Nothing is decoded here. Results do not depend on the order of a file system.
"""

import decimal
import math
import os
import pathlib
import re
import zipfile

import numpy as np

from gsdd_jax.core import memory, pyav
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import check_regular
from gsdd_jax.data import folders, lists, parts, videos
from gsdd_jax.data.items import Found, Item, Labels, some
from gsdd_jax.exports.png import MODES

_KINDS = ("images", "labels")  # array names, after that of their part


def find(path: str | os.PathLike, noun: str = "picture") -> Found:
    """Returns the pictures of a folder, a .csv, .tsv, .jsonl or .npz file, or its clips.

    A folder has one folder per class, with pictures at any depth, and optional parts such as train
    and test (`folders.find`). Links are followed; hidden and system folders are skipped. It may
    hold a list instead, whose first line names the columns `path` (relative to the file) and
    `label` (`lists.read`). Arrays are `images`, uint8 [n, h, w] or [n, h, w, c], and `labels` [n]
    or [n, 1]. `test_images` and `test_labels`, or parts by name as in MedMNIST, are optional.

    Clips are video files and folders of frames, also in lists, but not in arrays.

    Raises UsageError for anything else, and for videos without PyAV.
    """
    found = _found(path, noun)
    items = found.train + found.test
    if noun == "clip" and any(item.content.suffix.lower() in videos.FORMATS for item in items):
        pyav.module()
    return found


def _found(path: str | os.PathLike, noun: str) -> Found:
    path = pathlib.Path(path).expanduser()
    if os.path.isdir(path):
        metadata = lists.has_pictures(path)
        if metadata is None:
            return folders.find(path, noun)
        path = metadata
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file or folder")
    readers = {".csv": lists.read, ".tsv": lists.read, ".jsonl": lists.read, ".npz": _npz}
    if path.suffix.lower() == ".npy":
        raise UsageError(
            f"{path}: expected labels, too: np.savez('arrays.npz', images=images, labels=labels)"
        )
    if noun == "clip" and path.suffix.lower() == ".npz":
        raise UsageError(
            f"{path}: expected a folder, a .csv, .tsv or .jsonl file for clips; "
            "gsdd_jax.distill(clips, labels) takes arrays"
        )
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: expected a folder, a .csv, .tsv, .jsonl or .npz file")
    check_regular(path, "a folder, a .csv, .tsv, .jsonl or .npz file")
    with located(path):
        return readers[path.suffix.lower()](path)


def class_names(items: list[Item]) -> list[str]:
    """Returns the different classes, in numerical order if all are numbers, else alphabetically."""
    names = {item.label for item in items}
    if all(re.fullmatch(r"[+-]?\d+(\.\d+)?", name) for name in names):
        return sorted(names, key=lambda name: (decimal.Decimal(name), name))
    return sorted(names)


def order_note(class_names: list[str]) -> list[str]:
    """Returns a note if classes are not in alphabetical order, as other readers have them."""
    if class_names == sorted(class_names):
        return []
    return [
        f"classes are in the order of their numbers: {some(class_names)}; torchvision's "
        f"ImageFolder has them in the alphabet's: {some(sorted(class_names))}"
    ]


def _npz(path: pathlib.Path) -> Found:
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            for name in getattr(loaded, "files", ()):
                memory.check(f"the array {name}", _claimed(loaded.zip, f"{name}.npy"), 3)
            arrays = {name: loaded[name] for name in getattr(loaded, "files", ())}
    except UsageError:
        raise
    except Exception as error:  # NumPy and zipfile raise anything on damage
        raise UsageError(f"expected arrays by name, without objects ({error})") from None
    # An array without a part in its name is for training.
    found = (key.removesuffix(kind) for key in arrays for kind in _KINDS if key.endswith(kind))
    prefixes = list(dict.fromkeys(found))
    named = [prefix or f"{parts.TRAIN}_" for prefix in prefixes]
    chosen = parts.choose(named)
    if chosen is None:
        raise UsageError(
            "expected arrays images and labels, and test_images and test_labels, or those of parts "
            f"such as train_images and train_labels, got {some(list(arrays), 10) or 'none'}"
        )
    of = dict(zip(named, prefixes, strict=True))
    labels, notes = Labels(), []
    train = of_arrays(arrays, of[chosen.train], labels)
    test = of_arrays(arrays, of[chosen.test], labels) if chosen.test else []
    if chosen.left_out or (chosen.test and parts.of(chosen.test) != parts.TEST):
        rest = f"; left out: {some([f'{n}images' for n in chosen.left_out])}"
        notes = [
            f"{of[chosen.train]}images are to train on, {chosen.test or 'no test_'}images to test "
            f"on{rest if chosen.left_out else ''}"
        ]
    return Found(train, test, notes + labels.notes())


def _claimed(archive: zipfile.ZipFile, member: str) -> int:
    """Returns the size in bytes that an archived array's header claims."""
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


def of_arrays(
    arrays: dict[str, np.ndarray], prefix: str, names: Labels, frames: int = 1
) -> list[Item]:
    """Returns the images and labels of a part; `frames` of a clip are channels."""
    image_key, label_key = f"{prefix}images", f"{prefix}labels"
    for key in (image_key, label_key):
        if key not in arrays:
            raise UsageError(f"expected an array {key}, got {', '.join(arrays) or 'none'}")
    images, labels = arrays[image_key], arrays[label_key]
    labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] / frames not in MODES:
        raise UsageError(
            f"{image_key}: expected uint8 [n, h, w] or [n, h, w, c] of 1, 3 or 4 channels, got "
            f"{images.dtype} {list(arrays[image_key].shape)}{remedy(images)}"
        )
    if 0 in images.shape[1:]:
        raise UsageError(f"{image_key}: expected pixels, got images of {list(images.shape[1:])}")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuU":
        raise UsageError(
            f"{label_key}: expected {len(images)} whole numbers or texts, one per image, got "
            f"{labels.dtype} {list(labels.shape)}"
        )
    return [
        Item(f"{image_key}[{i}]", names.name(str(label), f"{label_key}[{i}]"), image)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def remedy(images: np.ndarray, layout: bool = False) -> str:
    """Returns how to convert arrays of other libraries, or only their layout."""
    steps = []
    if images.ndim == 4 and images.shape[-1] not in MODES and images.shape[1] in MODES:
        steps.append("images.transpose(0, 2, 3, 1)")
    if images.ndim == 5 and images.shape[-1] not in MODES and images.shape[2] in MODES:
        steps.append("images.transpose(0, 1, 3, 4, 2)")
    if images.dtype.kind == "f" and not layout:
        steps.append("(255 * images).round().astype('uint8') where they are in [0, 1]")
    elif images.dtype.kind in "iu" and images.dtype != np.uint8 and not layout:
        steps.append("images.astype('uint8') where they are 0 to 255")
    is_gray = layout and images.ndim == 4 and images.shape[-1] > max(MODES)
    gray = "; gray clips are images[..., None]" if is_gray else ""
    return (f"; convert them: {', then '.join(steps)}" if steps else "") + gray
