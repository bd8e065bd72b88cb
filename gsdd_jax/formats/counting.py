"""Bytes per class of anyone's distilled set: images or codes, labels, decoder."""

import math
import os
import pathlib
import re
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, UsageWarning, counted, located, printable
from gsdd_jax.core.files import check_path
from gsdd_jax.formats import file, foreign, info
from gsdd_jax.formats.base import is_unequal
from gsdd_jax.formats.foreign import Stored
from gsdd_jax.formats.labeler import WEIGHTS
from gsdd_jax.formats.labels import SOFT_LABELS

SAMPLES, SOFT, HARD, DECODER = "images or codes", "soft labels", "hard labels", "decoder"
OURS = {SOFT_LABELS: SOFT, WEIGHTS: "labeler"}  # what arrays of our sets hold
OF_CLASSES = "images of each class"
_COUNT = 4  # bytes of a class's number of images
_FLOAT32 = 4
_WIDEST, _MOST_LABELS = 120, 1 << 24  # characters of a name in a line; labels of a set
_CHANNELS = (1, 3)
_NAMES = ("label", "target", "logit")


class _Found(NamedTuple):
    """Contents of one path: parts as in `count`, and of other sets the arrays with what they hold.

    Attributes:
      classes: number of classes by what says it.
      besides: what a reader needs that does not count.
    """

    parts: list[dict[str, Any]]
    classes: dict[str, int]
    image_shape: tuple[int, ...] | None
    arrays: list[tuple[str, Stored]]
    besides: list[str]


@checked
def count(
    paths: Sequence[str | os.PathLike],
    decoder: Sequence[str | os.PathLike] = (),
    num_classes: int | None = None,
) -> dict[str, Any]:
    """Counts the bytes that a distilled set takes where it is stored, as plain JSON values.

    Every array counts, and every file of a folder of pictures, except hard labels. They take
    nothing if all classes have equally many images, and one number per class otherwise, since
    images can be sorted. This library's sets count by `DistilledSet.stored_bytes`.

    Args:
      paths: files or folders of one set; see `foreign.find`, and `gsdd_jax.load` for our own.
      decoder: files that turn codes into images: networks, generators, dictionaries.
      num_classes: number of classes; None: that of the labels, or of a folder of pictures.

    Returns:
      `parts`, a list of {name, holds, dtype, shape, bytes}; their sum `num_bytes`; `num_classes`;
      `bytes_per_class`; `float32_images`, the images per class of the same bytes, or None where
      the size of an image is unknown; and `not_counted`, what a reader needs besides.

    Warns if the labels are not as many as the images, where all samples are known to be images.

    Raises UsageError for unreadable files, contradictory numbers of classes, and if no label and no
    argument gives their number.
    """
    if not paths:
        raise UsageError("paths: expected one or more, got none")
    for path in (*paths, *decoder):
        check_path(path)
    found = [_ours(path) if _is_ours(path) else _others(path) for path in paths]
    parts = [part for of in found for part in of.parts]
    classes = {name: number for of in found for name, number in of.classes.items()}
    arrays = [array for of in found for array in of.arrays]
    if hard := [_read(of) for holds, of in arrays if holds == HARD]:
        _, counts = np.unique(np.concatenate(hard), return_counts=True)
        classes[HARD] = len(counts)
        if len(set(counts.tolist())) > 1:
            parts.append(_part(OF_CLASSES, HARD, _COUNT * len(counts)))
    _compare(arrays)
    for path in decoder:
        parts += [_part(of.name, DECODER, of.bytes, of) for of in foreign.find(path)]
    number = _number(num_classes, classes)
    total = sum(part["bytes"] for part in parts)
    size = next((of.image_shape for of in found if of.image_shape), None)
    return {
        "parts": parts,
        "not_counted": [what for of in found for what in of.besides],
        "num_bytes": total,
        "num_classes": number,
        "bytes_per_class": total / number,
        "image_shape": size and list(size),
        "float32_images": size and total / number / (_FLOAT32 * math.prod(size)),
    }


def _ours(path: str | os.PathLike) -> _Found:
    """Returns what one of this library's sets holds."""
    ours = file.load(path)
    parts = [
        _part(f"{path}: {name}", OURS.get(name, SAMPLES), taken)
        for name, taken in ours.stored_bytes.items()
    ]
    if is_unequal(ours.class_counts):
        parts.append(_part(f"{path}: {OF_CLASSES}", HARD, _COUNT * ours.num_classes))
    is_whitened = (info.info(ours)["transform"] or {}).get("name") == "zca"
    whitening = ["the whitening of ZCA, which follows from the training images"] * is_whitened
    besides = [*ours.format.besides, *whitening]
    return _Found(parts, {str(path): ours.num_classes}, ours.format.image_shape, [], besides)


def _others(path: str | os.PathLike) -> _Found:
    """Returns what a file or a folder of another's set holds."""
    arrays = [(_holds(of), of) for of in foreign.find(path)]
    parts = [_part(of.name, holds, 0 if holds == HARD else of.bytes, of) for holds, of in arrays]
    classes = {of.name: of.shape[1] for holds, of in arrays if holds == SOFT and len(of.shape) == 2}
    if of_classes := sum(of.dtype == foreign.PICTURES_OF_CLASS for _, of in arrays):
        classes = {str(path): of_classes} | classes
    sizes = (_image_shape(of.shape) for holds, of in arrays if holds == SAMPLES)
    return _Found(parts, classes, next(filter(None, sizes), None), arrays, [])


def _compare(arrays: Sequence[tuple[str, Stored]]) -> None:
    """Warns about labels that are not one per image, where all samples are images."""
    samples = [of for holds, of in arrays if holds == SAMPLES and len(of.shape) > 1]
    if not samples or not all(_image_shape(of.shape) for of in samples):
        return
    images = sum(of.shape[0] for of in samples)
    for kind in (HARD, SOFT):
        counts = [of.shape[0] for holds, of in arrays if holds == kind and of.dtype != foreign.FILE]
        # One array of labels for each array of images, or several labels for every image.
        if sum(counts) != images and set(counts) - {images}:
            warnings.warn(
                f"{kind}: expected one per image, got {counted(sum(counts), 'label')} for "
                f"{counted(images, 'image')}; all files have to be of one set",
                UsageWarning,
                stacklevel=4,
            )


def text(said: dict[str, Any]) -> str:
    """Returns the lines of `count` for people."""
    parts, per_class, ipc = said["parts"], said["bytes_per_class"], said["float32_images"]
    rows = [
        (printable(p["name"], _WIDEST), p["holds"],
         "" if p["dtype"] is None else f"{p['dtype']} {p['shape']}", f"{p['bytes']:,}")
        for p in parts
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True))
        + f"  {row[3]:>{widths[3]}}"
        for row in rows
    ]
    of = "" if ipc is None else (
        f", those of {ipc:,.2f} float32 images of {'x'.join(map(str, said['image_shape']))}"
    )  # fmt: skip
    classes = counted(said["num_classes"], "class")
    lines.append(f"{said['num_bytes']:,} bytes, {classes}: {per_class:,.1f} bytes per class{of}")
    return "\n".join([*lines, *(f"not counted: {what}" for what in said["not_counted"])])


def _number(given: int | None, found: Mapping[str, int]) -> int:
    """Returns the one number of classes that all labels have."""
    numbers = found | ({"the argument": given} if given is not None else {})
    if not numbers:
        raise UsageError(
            "classes: expected their number, since no array is named label, target or logit"
        )
    if least := [of for of, number in numbers.items() if number < 1]:
        raise UsageError(f"classes: expected at least 1, got none by {reprlib.repr(least[0])}")
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{number} by {reprlib.repr(of)}" for of, number in numbers.items())
        raise UsageError(f"classes: expected one number, got {said}")
    return next(iter(numbers.values()))


def _is_ours(path: str | os.PathLike) -> bool:
    path = pathlib.Path(path).expanduser()
    if os.path.isdir(path):
        return (path / file.NAME).is_file()
    if path.suffix == ".safetensors":
        return file.has_header(path)
    return not path.suffix and not os.path.lexists(path)  # a name of the zoo


def _read(of: Stored) -> np.ndarray:
    """Returns labels; raises UsageError for more than any set has."""
    with located(of.name):
        if (number := math.prod(of.shape)) > _MOST_LABELS:
            raise UsageError(f"expected at most {_MOST_LABELS:,} labels, got {number:,}")
        return of.read().ravel()


def _holds(of: Stored) -> str:
    """Returns what an array holds, by its type, its shape and its name."""
    words = re.split("[^a-z]+", pathlib.PurePath(of.name).name.lower())
    if not any(word.startswith(_NAMES) or word == "y" for word in words):
        return SAMPLES
    if of.dtype not in foreign.FILES and (len(of.shape) == 1 or of.shape[1:] == (1,)):
        if not re.match("u?int", of.dtype):
            raise UsageError(
                f"{of.name}: expected labels as integers [n], or as numbers [n, k], got "
                f"{of.dtype} {list(of.shape)}"
            )
        return HARD
    return SOFT if of.dtype == foreign.FILE or len(of.shape) == 2 else SAMPLES


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Returns height, width, channels of arrays [m, h, w, c] or [m, c, h, w]."""
    if len(shape) != 4 or 0 in shape:
        return None
    if shape[3] in _CHANNELS:
        return shape[1:]
    return (*shape[2:], shape[1]) if shape[1] in _CHANNELS else None


def _part(name: str, holds: str, taken: int, of: Stored | None = None) -> dict[str, Any]:
    shape = of and list(of.shape)
    return {
        "name": name, "holds": holds, "dtype": of and of.dtype, "shape": shape, "bytes": taken
    }  # fmt: skip
