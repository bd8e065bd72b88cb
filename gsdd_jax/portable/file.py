"""A distilled set as a file: what is in it, and whether it may be believed.

Nothing that a file says of itself is believed: its description against its arrays' types and
shapes, before any of them is read; then their values; then the digest of each part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.portable import entropy, labels
from gsdd_jax.portable.base import Spec, Stored
from gsdd_jax.portable.labels import LABEL_BITS, SOFT_LABELS
from gsdd_jax.portable.shapes import Float, Int

FORMAT = "gsdd-jax distilled set 2"
READABLE = ("gsdd-jax distilled set 1", FORMAT)  # the first had no codes
HEADER = "gsdd_jax"  # one metadata entry: safetensors writes several in no fixed order
PARAMETERIZATION, PROVENANCE, DIGESTS = "parameterization", "provenance", "sha256"
LABELS, LEARNING_RATE = "labels", "learning_rate"
# As safetensors calls them: the name, and what NumPy reads.
_DTYPES = {
    "BF16": ("bfloat16", "<u2"),
    "F32": ("float32", "<f4"),
    "I32": ("int32", "<i4"),
    "U8": ("uint8", "u1"),
}
# How many times their bytes arrays take while they are read and checked; codes become numbers.
_COPIES = {"bfloat16": 8, "float32": 6, "int32": 8, "uint8": 64}


@dataclasses.dataclass(frozen=True)
class Contents:
    """Of a good file.

    Attributes:
      kind: how the images are stored.
      arrays: of the parameters by name; bfloat16 as float32.
      num_bytes: of the parameters and the soft labels, as they are stored.
      labels, learning_rate, provenance, soft_labels, label_bits: as of `gsdd_jax.DistilledSet`.
    """

    kind: Stored
    arrays: dict[str, np.ndarray]
    num_bytes: int
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any]
    soft_labels: Float[np.ndarray, "m k"] | None
    label_bits: int


def read(path: str | os.PathLike, from_settings: Callable[[Mapping[str, Any]], Stored]) -> Contents:
    """Reads and checks a file; `from_settings` makes the `kind` of its description.

    Raises UsageError as `gsdd_jax.load`.
    """
    import safetensors

    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a distilled set (.safetensors)")
    with located(path), _readable():
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(HEADER, "null")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            dtypes = {n: _DTYPES.get(s.get_dtype(), (s.get_dtype(), "")) for n, s in slices.items()}
            shapes = {n: tuple(s.get_shape()) for n, s in slices.items()}
        parts, expected = _parse(metadata)
        kind, bits = from_settings(parts[PARAMETERIZATION]), parts.get(LABEL_BITS, 0)
        check_shapes(kind, bits, {n: (dtypes[n][0], shapes[n]) for n in dtypes})
        _check_memory([(*dtypes[n], math.prod(shapes[n])) for n in dtypes])
        # Only now: what is refused so far, however large, was not read.
        raw = {
            n: np.frombuffer(s["data"], dtypes[n][1]).reshape(shapes[n])
            for n, s in safetensors.deserialize(path.read_bytes())
        }
        arrays = {n: _widened(a) if dtypes[n][0] == "bfloat16" else a for n, a in raw.items()}
        check_values(kind, arrays)
        _check_digests(expected, raw, parts)
        classes, rate = arrays.pop(LABELS), float(arrays.pop(LEARNING_RATE))
        logits = None
        if bits:
            shape = labels_shape(kind, len(classes))
            logits = labels.unpack(arrays.pop(SOFT_LABELS), bits, shape)
    counted = sum(a.nbytes for n, a in raw.items() if n not in (LABELS, LEARNING_RATE))
    return Contents(kind, arrays, counted, classes, rate, parts[PROVENANCE], logits, bits)


def _check_memory(arrays: list[tuple[str, str, int]]) -> None:
    """Raises UsageError for arrays, (type, what NumPy reads, count), that memory does not hold."""
    sizes = [(dtype, count * np.dtype(read).itemsize) for dtype, read, count in arrays]
    what = f"its arrays of {memory.shown(sum(size for _, size in sizes))}, while they are read"
    memory.check(what, sum(_COPIES[dtype] * size for dtype, size in sizes))


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Turns what safetensors and the disk say of a file into a UsageError."""
    import safetensors

    try:
        yield
    except (safetensors.SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"not a readable safetensors file ({reason})") from None


def _widened(halves: np.ndarray) -> np.ndarray:
    """bfloat16, read as 16 bits each, in float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def labels_shape(kind: Stored, num_images: int) -> tuple[int, int]:
    """Of soft labels: images and classes."""
    return num_images, num_images // kind.images_per_class


def _parse(text: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The description and the provenance, both objects, with the bits of soft labels where there
    are any; and the digests where there are any."""
    try:
        header = json.loads(text)
        json.dumps(header)  # what is nested too deeply for anything that follows
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the metadata {HEADER} are not JSON ({error})") from None
    if not isinstance(header, dict) or header.pop("format", None) not in READABLE:
        raise UsageError("not a distilled set; expected a file written by gsdd_jax.save")
    found = header.pop(DIGESTS, None)  # files of the first versions have none
    for name in (PARAMETERIZATION, PROVENANCE):
        if name not in header:
            raise UsageError(f"{name} is missing from this distilled set")
        check_object(name, header[name])
    if LABEL_BITS in header:
        labels.check_bits(header[LABEL_BITS])
    for name in header:
        if name not in (PARAMETERIZATION, PROVENANCE, LABEL_BITS):
            raise UsageError(f"unknown field {reprlib.repr(name)} in the metadata {HEADER}")
    if found is not None:
        check_object(DIGESTS, found)
    return header, found


def check_object(name: str, value: Any) -> None:
    """Raises UsageError for what is no JSON object."""
    if not isinstance(value, dict):
        raise UsageError(f"{name}: expected an object, got {reprlib.repr(value)}")


def check_shapes(
    kind: Stored,
    label_bits: int,
    found: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Types and shapes by name, against those that the description asks for."""
    # The labels give the number of images; all else follows from it.
    classes = found.get(LABELS)
    num_images = classes[1][0] if classes and classes[1] else 0
    specs = {
        LABELS: Spec((num_images,), "int32"),
        LEARNING_RATE: Spec((), "float32"),
        **kind.array_specs(num_images),
    }
    if label_bits:
        count = math.prod(labels_shape(kind, num_images))
        size = entropy.packed_bytes([label_bits], count)
        specs[SOFT_LABELS] = Spec((size,), "uint8")
    for name in specs:
        if name not in found:
            raise UsageError(f"the array {name!r} is missing from this distilled set")
    for name in found:
        if name not in specs:
            raise UsageError(
                f"unknown array {reprlib.repr(name)}; expected only {', '.join(specs)}"
            )
    for name, spec in specs.items():
        expected = str(spec.dtype), spec.shape
        dtype, shape = found[name]
        same = len(shape) == len(spec.shape) and all(
            there == known or known is None for there, known in zip(shape, spec.shape, strict=True)
        )
        if dtype != expected[0] or not same:
            raise UsageError(
                f"{name}: expected {_shown(*expected)}, by the labels and the parameterization, "
                f"got {_shown(*found[name])}"
            )
    with located(LABELS):
        kind.check_num_images(num_images)


def _shown(dtype: str, shape: tuple[int | None, ...]) -> str:
    return f"{dtype} [{', '.join('any' if n is None else str(n) for n in shape)}]"


def check_values(kind: Stored, arrays: Mapping[str, Any]) -> None:
    """Raises UsageError for numbers that no set has."""
    for name, array in arrays.items():
        with np.errstate(invalid="ignore"):  # a signalling NaN is no news here
            finite = np.isfinite(array)
        if wrong := int(array.size - finite.sum()):
            raise UsageError(f"{name}: expected finite numbers, got {wrong} that are not")
    kind.check_arrays(arrays)
    rate = arrays[LEARNING_RATE]
    if not rate > 0:
        raise UsageError(f"{LEARNING_RATE}: expected a positive number, got {rate}")
    there, per_class = np.sort(arrays[LABELS]), kind.images_per_class
    classes = np.arange(len(there) // per_class)
    wrong = np.flatnonzero(there != np.repeat(classes, per_class))
    if len(wrong):
        raise UsageError(
            f"{LABELS}: expected each of 0 to {len(classes) - 1} as often as images_per_class="
            f"{per_class}, got {there[wrong[0]]} in place of {wrong[0] // per_class}"
        )


def digests(arrays: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256, in hexadecimal, of every part of a file by its name."""
    contents = {name: array.tobytes() for name, array in arrays.items()}
    contents |= {n: json.dumps(part, sort_keys=True).encode() for n, part in parts.items()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _check_digests(
    expected: Mapping[str, Any] | None, arrays: Mapping[str, Any], parts: Mapping[str, Any]
) -> None:
    if expected is None:
        return
    found = digests(arrays, parts)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise UsageError(
                f"{reprlib.repr(name)[1:-1]}: not what its {DIGESTS} says; the file was damaged or "
                "changed after it was written"
            )
