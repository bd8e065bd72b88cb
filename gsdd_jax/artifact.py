"""A distilled set as a file: parameters, labels, learning rate, provenance; nothing pickled.

Soft labels are codes of a few bits, packed; the description says of how many.

Nothing that a file says of itself is believed: its description against its arrays' types and
shapes, before any of them is read; then their values; then the digest of each part.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import numbers
import os
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from gsdd_jax import parameterizations
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import write_atomically
from gsdd_jax.data import soft_labels
from gsdd_jax.parameterizations import entropy
from gsdd_jax.parameterizations.base import (
    MAX_SIDE,
    RESAMPLINGS,
    Parameterization,
    Params,
    num_bytes,
)

FORMAT = "gsdd-jax distilled set 2"
READABLE = ("gsdd-jax distilled set 1", FORMAT)  # the first had no codes
HEADER = "gsdd_jax"  # one metadata entry: safetensors writes several in no fixed order
PARAMETERIZATION, PROVENANCE, DIGESTS = "parameterization", "provenance", "sha256"
LABELS, LEARNING_RATE = "labels", "learning_rate"
SOFT_LABELS, LABEL_BITS = "soft_labels", "label_bits"  # where there are any
# As safetensors calls them.
_DTYPES = {"BF16": "bfloat16", "F32": "float32", "I32": "int32", "U8": "uint8"}


@dataclasses.dataclass(frozen=True)
class DistilledSet:
    """What distillation produces, independent of the data set it came from.

    Attributes:
      parameterization: how the images are stored; static settings only.
      params: the stored values, in float32.
      labels: the class of each image; each of 0 to K - 1 as often as the parameterization's
        `images_per_class`.
      learning_rate: of the student, for training on this set.
      provenance: plain JSON values: how the set was made (config, versions, step, data).
      soft_labels: where they were learned: of each image a logit for every class, on the grid of
        `gsdd_jax.data.soft_labels`.
      label_bits: of the code of each; 0 without.
    """

    parameterization: Parameterization
    params: Params
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    soft_labels: Float[np.ndarray, "m k"] | None = None
    label_bits: int = 0

    @property
    def targets(self) -> Int[np.ndarray, "m"] | Float[Array, "m k"]:
        """What networks learn of each image: its class, or where the labels are soft, the
        probabilities of all classes."""
        return self.labels if self.soft_labels is None else jax.nn.softmax(self.soft_labels)

    def images(
        self, height: int | None = None, width: int | None = None, resample: str = "bilinear"
    ) -> Float[Array, "m h w c"]:
        """Rendered images in the data set's [0, 1] space, not clipped.

        Args:
          height, width: in pixels; None: the set's own.
          resample: "bilinear" or "nearest", for images that are stored at one size (pixels, idc).
            The others are rendered at the size that is asked for.

        Raises ValueError for a size or a resampling that there is not.
        """
        native = self.parameterization
        height = native.height if height is None else height
        width = native.width if width is None else width
        for name, side in (("height", height), ("width", width)):
            if not (isinstance(side, numbers.Integral) and 1 <= side <= MAX_SIDE):
                raise ValueError(f"{name}: expected an integer from 1 to {MAX_SIDE}, got {side!r}")
        if resample not in RESAMPLINGS:
            raise ValueError(
                f"resample: expected one of {', '.join(RESAMPLINGS)}, got {resample!r}"
            )
        return _render(native, self.params, int(height), int(width), resample)

    @property
    def num_bytes(self) -> int:
        """Of the stored parameters and soft labels, which is what the budget counts (the class of
        each image is free)."""
        arrays = self.parameterization.to_arrays(self.params)
        return num_bytes(arrays | _packed_labels(self))


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _render(parameterization, params, height, width, resample):
    return parameterization.render_at(params, height, width, resample)


def save(path: str | os.PathLike, distilled: DistilledSet) -> None:
    """Writes one `.safetensors` file, atomically: a reader sees the old file or the new one.

    Raises UsageError for whatever `load` would refuse, so that no such file comes to be.
    """
    import safetensors.flax

    with located(path):
        arrays = {n: np.asarray(a) for n, a in _stored(distilled).items()}
        try:
            # What JSON makes of them (a tuple becomes a list) is what the digests are of.
            parts = {
                PARAMETERIZATION: parameterizations.settings(distilled.parameterization),
                PROVENANCE: distilled.provenance,
            }
            if SOFT_LABELS in arrays:
                parts[LABEL_BITS] = distilled.label_bits
            parts = json.loads(json.dumps(parts))
            digests = _digests(arrays, parts)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"{PROVENANCE}: expected plain JSON values ({error})") from None
        _check_shapes(
            _parameterization(parts),
            parts.get(LABEL_BITS, 0),
            {n: (str(a.dtype), a.shape) for n, a in arrays.items()},
        )
        _check_values(distilled.parameterization, arrays)
        _check_object(PROVENANCE, parts[PROVENANCE])
    header = {"format": FORMAT, **parts, DIGESTS: digests}
    metadata = {HEADER: json.dumps(header, sort_keys=True)}
    content = safetensors.flax.save({n: jnp.asarray(a) for n, a in arrays.items()}, metadata)
    write_atomically(path, content)


def load(path: str | os.PathLike) -> DistilledSet:
    """Reads what `save` wrote.

    Raises:
      UsageError: the file is missing, truncated or foreign; its description is incomplete, makes
        no sense or contradicts its arrays; a number is not finite; a part is not what its digest
        says. One line that names the file and the field.
    """
    import safetensors
    import safetensors.flax

    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a distilled set (.safetensors)")
    try:
        with safetensors.safe_open(path, framework="flax") as file:
            parts, digests = _parse((file.metadata() or {}).get(HEADER, "null"))
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            parameterization, bits = _parameterization(parts), parts.get(LABEL_BITS, 0)
            _check_shapes(
                parameterization,
                bits,
                {
                    name: (_DTYPES.get(s.get_dtype(), s.get_dtype()), tuple(s.get_shape()))
                    for name, s in slices.items()
                },
            )
            arrays = {name: np.asarray(file.get_tensor(name)) for name in slices}
        _check_values(parameterization, arrays)
        _check_digests(digests, arrays, parts)
        labels, learning_rate = arrays.pop(LABELS), float(arrays.pop(LEARNING_RATE))
        logits = None
        if bits:
            shape = _labels_shape(parameterization, len(labels))
            logits = _unpacked_labels(arrays.pop(SOFT_LABELS), bits, shape)
        params = parameterization.from_arrays({n: jnp.asarray(a) for n, a in arrays.items()})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (safetensors.SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: not a readable safetensors file ({reason})") from None
    return DistilledSet(
        parameterization, params, labels, learning_rate, parts[PROVENANCE], logits, bits
    )


def _stored(distilled: DistilledSet) -> dict[str, Any]:
    """All arrays of the file. What cannot be stored as it is stays as it is, to be refused."""
    arrays = dict(distilled.parameterization.to_arrays(distilled.params))
    labels = np.asarray(distilled.labels)
    if labels.dtype.kind in "iu" and np.array_equal(labels, labels.astype(np.int32)):
        labels = labels.astype(np.int32)
    with np.errstate(over="ignore"):
        rate = np.asarray(distilled.learning_rate).astype(np.float32)
    return arrays | {LABELS: labels, LEARNING_RATE: rate} | _packed_labels(distilled)


def _packed_labels(distilled: DistilledSet) -> dict[str, UInt8[np.ndarray, "bytes"]]:
    """The array of the soft labels, where there are any; raises UsageError for what is not on the
    grid, or not one number of each image and class."""
    if distilled.soft_labels is None:
        return {}
    bits, logits = distilled.label_bits, np.asarray(distilled.soft_labels, np.float32)
    _check_bits(bits)
    expected = _labels_shape(distilled.parameterization, len(distilled.labels))
    if logits.shape != expected:
        raise UsageError(
            f"{SOFT_LABELS}: expected shape {list(expected)}, of images and classes, got "
            f"{list(logits.shape)}"
        )
    codes = soft_labels.codes(logits, bits)
    if wrong := int((soft_labels.values(codes, bits) != logits).sum()):  # NaN among them
        raise UsageError(
            f"{SOFT_LABELS}: expected logits on the grid of {2**bits} values, got {wrong} beside it"
        )
    return {SOFT_LABELS: entropy.pack([codes.astype(np.int32).ravel()], [bits])}


def _unpacked_labels(payload, bits, shape) -> Float[np.ndarray, "m k"]:
    """The inverse of `_packed_labels`."""
    (codes,) = entropy.unpack(payload, [bits], math.prod(shape))
    if not np.array_equal(entropy.pack([codes], [bits]), payload):
        raise UsageError(f"{SOFT_LABELS}: expected zeros after the last code")
    return soft_labels.values(codes, bits).reshape(shape)


def _labels_shape(parameterization: Parameterization, num_images: int) -> tuple[int, int]:
    """Of soft labels: images and classes."""
    return num_images, num_images // parameterization.images_per_class


def _check_bits(value: Any) -> None:
    least, most = soft_labels.BITS
    if type(value) is not int or not least <= value <= most:
        raise UsageError(
            f"{LABEL_BITS}: expected an integer from {least} to {most}, got {reprlib.repr(value)}"
        )


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
    digests = header.pop(DIGESTS, None)  # files of the first versions have none
    for name in (PARAMETERIZATION, PROVENANCE):
        if name not in header:
            raise UsageError(f"{name} is missing from this distilled set")
        _check_object(name, header[name])
    if LABEL_BITS in header:
        _check_bits(header[LABEL_BITS])
    for name in header:
        if name not in (PARAMETERIZATION, PROVENANCE, LABEL_BITS):
            raise UsageError(f"unknown field {reprlib.repr(name)} in the metadata {HEADER}")
    if digests is not None:
        _check_object(DIGESTS, digests)
    return header, digests


def _check_object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{name}: expected an object, got {reprlib.repr(value)}")


def _parameterization(parts: Mapping[str, Any]) -> Parameterization:
    return parameterizations.from_settings(parts[PARAMETERIZATION])


def _check_shapes(
    parameterization: Parameterization,
    label_bits: int,
    found: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Types and shapes by name, against those that the description asks for."""
    # The labels give the number of images; all else follows from it.
    labels = found.get(LABELS)
    num_images = labels[1][0] if labels and labels[1] else 0
    specs = {
        LABELS: jax.ShapeDtypeStruct((num_images,), jnp.int32),
        LEARNING_RATE: jax.ShapeDtypeStruct((), jnp.float32),
        **parameterization.array_specs(num_images),
    }
    if label_bits:
        count = math.prod(_labels_shape(parameterization, num_images))
        size = entropy.packed_bytes([label_bits], count)
        specs[SOFT_LABELS] = jax.ShapeDtypeStruct((size,), jnp.uint8)
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
        parameterization.check_num_images(num_images)


def _shown(dtype: str, shape: tuple[int | None, ...]) -> str:
    return f"{dtype} [{', '.join('any' if n is None else str(n) for n in shape)}]"


def _check_values(parameterization: Parameterization, arrays: Mapping[str, Any]) -> None:
    for name, array in arrays.items():
        with np.errstate(invalid="ignore"):  # a signalling NaN is no news here
            finite = np.isfinite(array)
        if wrong := int(array.size - finite.sum()):
            raise UsageError(f"{name}: expected finite numbers, got {wrong} that are not")
    parameterization.check_arrays(arrays)
    rate = arrays[LEARNING_RATE]
    if not rate > 0:
        raise UsageError(f"{LEARNING_RATE}: expected a positive number, got {rate}")
    labels, per_class = arrays[LABELS], parameterization.images_per_class
    classes = np.arange(len(labels) // per_class)
    wrong = np.flatnonzero(np.sort(labels) != np.repeat(classes, per_class))
    if len(wrong):
        raise UsageError(
            f"{LABELS}: expected each of 0 to {len(classes) - 1} as often as images_per_class="
            f"{per_class}, got {np.sort(labels)[wrong[0]]} in place of {wrong[0] // per_class}"
        )


def _digests(arrays: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256, in hexadecimal, of every part of a file by its name."""
    contents = {name: array.tobytes() for name, array in arrays.items()}
    contents |= {n: json.dumps(part, sort_keys=True).encode() for n, part in parts.items()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _check_digests(
    digests: Mapping[str, Any] | None, arrays: Mapping[str, Any], parts: Mapping[str, Any]
) -> None:
    if digests is None:
        return
    found = _digests(arrays, parts)
    for name in sorted(found.keys() | digests.keys()):
        if found.get(name) != digests.get(name):
            raise UsageError(
                f"{reprlib.repr(name)[1:-1]}: not what its {DIGESTS} says; the file was damaged or "
                "changed after it was written"
            )
