"""Distilled sets as files of arrays, labels, learning rate and provenance; nothing is pickled.

Files are untrusted. The header is checked against the arrays' types and shapes before reading
them, then the values, then a digest of each part.
"""

import collections
import contextlib
import hashlib
import json
import math
import os
import pathlib
import reprlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gsdd_jax import zoo
from gsdd_jax.core import memory
from gsdd_jax.core.arguments import checked
from gsdd_jax.core.errors import UsageError, located, named, ranged
from gsdd_jax.core.files import check_ours, check_regular, write_atomically
from gsdd_jax.formats import labeler, labels, mixes, remote
from gsdd_jax.formats.base import Format, Spec, format_of, is_unequal, settings
from gsdd_jax.formats.distilled import CLASS_NAMES, DistilledSet, class_names_of
from gsdd_jax.formats.labeler import LABELER, WEIGHTS, Labeler
from gsdd_jax.formats.labels import LABEL_BITS, SOFT_LABELS
from gsdd_jax.formats.mixes import MIXES

NAME = "distilled.safetensors"  # in a work directory
FORMAT = "gsdd-jax distilled set 2"
HEADER = "gsdd_jax"  # the only metadata entry: safetensors does not order several
PARAMETERIZATION, PROVENANCE, DIGESTS = "parameterization", "provenance", "sha256"
LABELS, LEARNING_RATE = "labels", "learning_rate"
# safetensors name -> our name, and the type that NumPy reads.
_DTYPES = {
    "BF16": ("bfloat16", "<u2"),
    "F32": ("float32", "<f4"),
    "I32": ("int32", "<i4"),
    "U8": ("uint8", "u1"),
}
# Memory of reading and checking arrays, relative to their bytes; codes are decoded.
_COPIES = {"bfloat16": 8, "float32": 6, "int32": 8, "uint8": 64}


@checked
def save(path: str | os.PathLike, distilled: DistilledSet) -> None:
    """Writes one `.safetensors` file, atomically.

    Raises UsageError for a set that `load` would refuse, and if `path` is anything but a distilled
    set to replace.
    """
    path = os.path.expanduser(path)
    check_place(path)
    with located(path):
        content = encoded(distilled)
    write_atomically(path, content)


def encoded(distilled: DistilledSet) -> bytes:
    """Returns the content of a set's file; raises UsageError for a set that `load` would refuse."""
    import safetensors.numpy

    arrays = _arrays(distilled)
    parts = {PARAMETERIZATION: settings(distilled.format), PROVENANCE: distilled.provenance}
    if SOFT_LABELS in arrays:
        parts[LABEL_BITS] = distilled.label_bits
    if distilled.mixes:
        parts[MIXES] = distilled.mixes
    if distilled.labeler is not None:
        parts[LABELER] = distilled.labeler.settings
    try:
        # Digests are of parts as read back: JSON makes lists of tuples.
        parts = json.loads(json.dumps(parts))
        json.dumps(parts, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{PROVENANCE}: expected plain JSON values ({error})") from None
    check_provenance(parts[PROVENANCE])
    check_labels(parts)
    kind = format_of(parts[PARAMETERIZATION])
    dtypes = {n: str(a.dtype) for n, a in arrays.items()}
    halves = {n for n, s in kind.array_specs(0).items() if s.dtype == "bfloat16"}
    halves = {n for n in halves if dtypes.get(n) == "float32"}
    found = {n: ("bfloat16" if n in halves else dtypes[n], a.shape) for n, a in arrays.items()}
    check_shapes(kind, parts, found)
    check_values(kind, arrays)
    if LABELER in parts:
        _labeler(kind, distilled.num_classes, parts[LABELER], arrays[WEIGHTS])
    raw = {n: np.array(a, order="C") for n, a in arrays.items()}
    raw |= {n: _narrowed(n, raw[n]) for n in halves}
    header = {"format": FORMAT, **parts, DIGESTS: digests(raw, parts)}
    return safetensors.numpy.save(raw, {HEADER: json.dumps(header, sort_keys=True)})


class Described(NamedTuple):
    """What a file says of its set before anything is decoded."""

    format: Format
    num_images: int  # with mixtures
    class_names: tuple[str, ...] | None
    has_labeler: bool


def decoded(
    content: bytes, source: str, accept: Callable[[Described], None] = lambda of: None
) -> DistilledSet:
    """Reads the content of a set's file, untrusted; raises as `load`, naming its `source`.

    `accept` may refuse what the file says of itself, before anything is decoded.
    """
    with tempfile.TemporaryDirectory(prefix="gsdd-") as folder:
        path = pathlib.Path(folder, NAME)
        path.write_bytes(content)
        return _load(path, source, accept)


def check_place(path: str | os.PathLike) -> None:
    """Raises UsageError if `path` cannot be written, or is anything but a set to replace."""
    check_ours(path, "a distilled set", has_header)


def has_header(path: str | os.PathLike) -> bool:
    """Returns whether a `.safetensors` file says that it is a distilled set, right or wrong."""
    return HEADER in metadata(path)


def metadata(path: str | os.PathLike) -> dict[str, str]:
    """Returns the metadata of a `.safetensors` file; raises UsageError for any other file."""
    import safetensors

    check_regular(path, "a .safetensors file")
    with located(path), _readable(), safetensors.safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def path_of(path: str | os.PathLike) -> pathlib.Path:
    """Returns a set's path: of a file, a work directory's set or, if missing, a set of the zoo.

    Expands `~`.
    """
    given, path = path, pathlib.Path(os.path.expanduser(path))
    if os.path.isdir(path):  # pathlib raises for a long name
        return path / NAME
    return (not os.path.lexists(path) and zoo.find(given)) or path


@checked
def load(path: str | os.PathLike) -> DistilledSet:
    """Reads a file of `save`, `distilled.safetensors` in a work directory, or a set of the zoo.

    A URL is read through fsspec: https://, s3://, or hf://ORGANIZATION/NAME for a data set of the
    Hugging Face Hub that `launch.export --to=hf` wrote.

    Raises:
      UsageError: the file is missing, truncated or foreign; its header is incomplete, invalid or
        contradicts its arrays; a number is not finite; or a digest differs.
    """
    if remote.is_url(path):
        with remote.fetched(remote.place(path, NAME)) as copy:
            return _load(copy, named(path))
    path = path_of(path)
    if not path.suffix and not os.path.lexists(path):
        known = ", ".join(zoo.names())
        raise UsageError(
            f"{named(path)}: no such file or work directory; by name there are {known}"
        )
    check_regular(path, "a distilled set, a .safetensors file")
    return _load(path, str(path))


def _load(
    path: pathlib.Path, source: str, accept: Callable[[Described], None] = lambda of: None
) -> DistilledSet:
    """Reads a regular file; errors and the set name its `source`."""
    import safetensors

    with located(source), _readable():
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(HEADER, "null")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            dtypes = {n: _DTYPES.get(s.get_dtype(), (s.get_dtype(), "")) for n, s in slices.items()}
            shapes = {n: tuple(s.get_shape()) for n, s in slices.items()}
        parts, expected = _parse(metadata)
        kind, bits = format_of(parts[PARAMETERIZATION]), parts.get(LABEL_BITS, 0)
        check_shapes(kind, parts, {n: (dtypes[n][0], shapes[n]) for n in dtypes})
        _check_memory([(*dtypes[n], math.prod(shapes[n])) for n in dtypes])
        stored, each = math.prod(shapes[LABELS]), parts.get(MIXES, 0)
        names = class_names_of(parts[PROVENANCE].get("data"), stored // kind.images_per_class)
        accept(Described(kind, stored * (1 + each), names, LABELER in parts))
        # Reads no array before its type and shape are known to be right.
        raw = {
            n: np.frombuffer(s["data"], dtypes[n][1]).reshape(shapes[n])
            for n, s in safetensors.deserialize(path.read_bytes())
        }
        # bfloat16, read as uint16, are the upper halves of float32.
        halves = {n: a for n, a in raw.items() if dtypes[n][0] == "bfloat16"}
        arrays = raw | {n: (a.astype(np.uint32) << 16).view(np.float32) for n, a in halves.items()}
        check_values(kind, arrays)
        _check_digests(expected, raw, parts)
        classes, rate = arrays.pop(LABELS), float(arrays.pop(LEARNING_RATE))
        logits, stored_with = None, None
        num_classes = len(classes) // kind.images_per_class
        if LABELER in parts:
            stored_with = _labeler(kind, num_classes, parts[LABELER], arrays.pop(WEIGHTS))
        if bits:
            count = len(classes) * (1 + each) * num_classes
            labels.check_size(count, len(arrays[SOFT_LABELS]))  # before mixtures are drawn
            of_parts = mixes.parts(classes, each)
            logits = labels.unpack(arrays.pop(SOFT_LABELS), bits, of_parts, num_classes)
        of_file = parts[PROVENANCE], logits, bits, each, stored_with, source
        distilled = DistilledSet(kind, arrays, np.tile(classes, 1 + each), rate, *of_file)
        _ = distilled.params  # refuses invalid codes
    return distilled


def _labeler(kind, num_classes, settings, payload) -> Labeler:
    """Returns the labeler of a file. Raises UsageError for one that is invalid, or of clips."""
    if kind.frames > 1:
        raise UsageError(f"{LABELER}: expected none with clips, got one")
    network = kind.image_shape, num_classes, settings["width"], settings["depth"]
    labeler.check_size(labeler.layers_of(*network), len(payload))
    found = Labeler(*network, settings["bits"], settings["temperature"], payload)
    _ = found.weights  # refuses invalid codes
    return found


def _arrays(distilled: DistilledSet) -> dict[str, np.ndarray]:
    """Returns all arrays of the file, including invalid ones for the checks to refuse."""
    arrays = {n: np.asarray(a) for n, a in distilled.arrays.items()}
    classes = np.asarray(distilled.labels)
    stored, times = classes[: distilled.num_stored], distilled.mixes
    if times and not np.array_equal(classes, np.tile(stored, 1 + times)):
        raise UsageError(f"{LABELS}: expected those of the images again, {times} times")
    classes = stored
    if classes.dtype.kind in "iu" and np.array_equal(classes, classes.astype(np.int32)):
        classes = classes.astype(np.int32)
    with np.errstate(over="ignore"):
        rate = np.asarray(distilled.learning_rate).astype(np.float32)
    arrays |= {LABELS: classes, LEARNING_RATE: rate}
    if distilled.labeler is not None:
        arrays[WEIGHTS] = distilled.labeler.payload
    if distilled.soft_labels is None:
        return arrays
    return arrays | {SOFT_LABELS: distilled.packed_labels}


def _check_memory(arrays: list[tuple[str, str, int]]) -> None:
    """Raises UsageError if arrays (type, NumPy's type, count) exceed the memory."""
    sizes = [(dtype, count * np.dtype(read).itemsize) for dtype, read, count in arrays]
    what = f"its arrays of {memory.shown(sum(size for _, size in sizes))}, while they are read"
    memory.check(what, sum(_COPIES[dtype] * size for dtype, size in sizes))


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turns errors of safetensors and the file system into UsageErrors."""
    import safetensors

    try:
        yield
    except (safetensors.SafetensorError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"not a readable safetensors file ({reason})") from None


def _narrowed(name: str, values: np.ndarray) -> np.ndarray:
    """Converts float32 to bfloat16; raises UsageError for values that would be rounded."""
    try:
        import ml_dtypes
    except ImportError:
        raise UsageError(
            f"{name}: ml_dtypes, which writes bfloat16, is not installed; pip install ml_dtypes"
        ) from None
    halves = values.astype(ml_dtypes.bfloat16)
    if wrong := int(np.count_nonzero(halves.astype(np.float32) != values)):
        raise UsageError(f"{name}: expected bfloat16 values, got {wrong} that are not")
    return halves


def _parse(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the checked header without its digests, and the digests."""
    try:
        header = json.loads(text)
        json.dumps(header)  # fails if nested too deeply
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the metadata {HEADER} are not JSON ({error})") from None
    if not isinstance(header, dict) or header.pop("format", None) != FORMAT:
        raise UsageError("not a distilled set; expected a file written by gsdd_jax.save")
    for name in (PARAMETERIZATION, PROVENANCE, DIGESTS):
        if name not in header:
            raise UsageError(f"{name} is missing from this distilled set")
        check_object(name, header[name])
    check_provenance(header[PROVENANCE])
    found = header.pop(DIGESTS)
    if LABEL_BITS in header:
        labels.check_bits(header[LABEL_BITS])
    check_labels(header)
    known = PARAMETERIZATION, PROVENANCE, LABEL_BITS, MIXES, LABELER
    if unknown := [n for n in header if n not in known]:
        raise UsageError(f"unknown field {reprlib.repr(unknown[0])} in the metadata {HEADER}")
    return header, found


def check_labels(header: Mapping[str, Any]) -> None:
    """Raises UsageError for settings of mixtures or a labeler that are invalid, or contradict."""
    if LABELER in header:
        labeler.check_settings(header[LABELER])
        if LABEL_BITS in header:
            raise UsageError(f"{LABELER}: expected no soft labels with a labeler, got both")
    if MIXES in header:
        mixes.check(header[MIXES])
        if LABEL_BITS not in header:
            raise UsageError(f"{MIXES}: expected soft labels, which mixtures need, got none")


def check_object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{name}: expected an object, got {reprlib.repr(value)}")


def check_provenance(value: Any) -> None:
    """Raises UsageError for anything but an object, and for class names that are not different."""
    check_object(PROVENANCE, value)
    data = value.get("data")
    names = data.get(CLASS_NAMES) if isinstance(data, dict) else None
    texts = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if repeated := [name for name, count in collections.Counter(texts).items() if count > 1]:
        raise UsageError(
            f"{PROVENANCE}.data.{CLASS_NAMES}: expected different names, got "
            f"{reprlib.repr(repeated[0])} again"
        )


def check_shapes(
    kind: Format, header: Mapping[str, Any], found: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    """Checks arrays' types and shapes, by name, against the header; raises UsageError."""
    # The labels give the number of images, on which all other shapes depend.
    classes = found.get(LABELS)
    num_images = classes[1][0] if classes and classes[1] else 0
    specs = {
        LABELS: Spec((num_images,), "int32"),
        LEARNING_RATE: Spec((), "float32"),
        **kind.array_specs(num_images),
    }
    for name, said in ((SOFT_LABELS, LABEL_BITS), (WEIGHTS, LABELER)):
        if said in header:
            specs[name] = Spec((None,), "uint8")
    if missing := [name for name in specs if name not in found]:
        raise UsageError(f"the array {missing[0]!r} is missing from this distilled set")
    if unknown := [name for name in found if name not in specs]:
        raise UsageError(
            f"unknown array {reprlib.repr(unknown[0])}; expected only {', '.join(specs)}"
        )
    for name, (expected, dtype) in specs.items():
        there, shape = found[name]
        same = there == dtype and len(shape) == len(expected)
        if not same or any(e not in (s, None) for s, e in zip(shape, expected, strict=True)):
            raise UsageError(
                f"{name}: expected {_shown(dtype, expected)}, by the labels and the "
                f"parameterization, got {_shown(there, shape)}"
            )
    with located(LABELS):
        kind.check_num_images(num_images)


def _shown(dtype: str, shape: tuple[int | None, ...]) -> str:
    return f"{dtype} [{', '.join('any' if n is None else str(n) for n in shape)}]"


def check_values(kind: Format, arrays: Mapping[str, Any]) -> None:
    """Raises UsageError for values that no valid set has."""
    for name, array in arrays.items():
        with np.errstate(invalid="ignore"):  # raised for a signaling NaN
            finite = np.isfinite(array)
        if wrong := int(array.size - finite.sum()):
            raise UsageError(f"{name}: expected finite numbers, got {wrong} that are not")
    kind.check_arrays(arrays)
    rate = arrays[LEARNING_RATE]
    if not rate > 0:
        raise UsageError(f"{LEARNING_RATE}: expected a positive number, got {rate}")
    _check_labels(kind, np.asarray(arrays[LABELS]))


def _check_labels(kind: Format, there: np.ndarray) -> None:
    """Raises UsageError unless every class has images, in order if not equally many."""
    num_classes = len(there) // kind.images_per_class
    expected = f"{LABELS}: expected each of 0 to {num_classes - 1}"
    if len(wrong := there[(there < 0) | (there >= num_classes)]):
        raise UsageError(f"{expected}, got {wrong[0]}")
    counts = np.bincount(there, minlength=num_classes).tolist()
    if 0 in counts:
        raise UsageError(f"{expected} at least once, got no {counts.index(0)}")
    if not is_unequal(counts):
        return
    if held := kind.arrays_by_class():
        raise UsageError(
            f"{expected} as often as images_per_class={kind.images_per_class}, as {held[0]} of "
            f"{kind.name} require, got {ranged(counts, 'image')} per class"
        )
    if (np.diff(there) < 0).any():
        raise UsageError(
            f"{LABELS}: expected images in the order of their classes, which have "
            f"{ranged(counts, 'image')}"
        )


def digests(arrays: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, str]:
    """Returns the hexadecimal SHA-256 of every part of a file, by name."""
    contents = {name: array.tobytes() for name, array in arrays.items()}
    contents |= {n: json.dumps(part, sort_keys=True).encode() for n, part in parts.items()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _check_digests(
    expected: Mapping[str, Any], arrays: Mapping[str, Any], parts: Mapping[str, Any]
) -> None:
    found = digests(arrays, parts)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise UsageError(
                f"{reprlib.repr(name)[1:-1]}: not what its {DIGESTS} says; the file was damaged or "
                "changed after it was written"
            )
