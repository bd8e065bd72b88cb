"""A distilled set as a file: parameters, labels, learning rate, provenance; nothing pickled.

Nothing that a file says of itself is believed: its description against its arrays' types and
shapes, before any of them is read; then their values; then the digest of each part.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import numbers
import os
import pathlib
import reprlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gsdd_jax import parameterizations
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.files import write_atomically
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
    """

    parameterization: Parameterization
    params: Params
    labels: Int[np.ndarray, "m"]
    learning_rate: float
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

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
        """Of the stored parameters, which is what the budget counts (labels are free)."""
        return num_bytes(self.parameterization.to_arrays(self.params))


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
            parts = json.loads(
                json.dumps(
                    {
                        PARAMETERIZATION: parameterizations.settings(distilled.parameterization),
                        PROVENANCE: distilled.provenance,
                    }
                )
            )
            digests = _digests(arrays, parts)
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"{PROVENANCE}: expected plain JSON values ({error})") from None
        _check_shapes(
            _parameterization(parts), {n: (str(a.dtype), a.shape) for n, a in arrays.items()}
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
            parameterization = _parameterization(parts)
            _check_shapes(
                parameterization,
                {
                    name: (_DTYPES.get(s.get_dtype(), s.get_dtype()), tuple(s.get_shape()))
                    for name, s in slices.items()
                },
            )
            arrays = {name: np.asarray(file.get_tensor(name)) for name in slices}
        _check_values(parameterization, arrays)
        _check_digests(digests, arrays, parts)
        labels, learning_rate = arrays.pop(LABELS), float(arrays.pop(LEARNING_RATE))
        params = parameterization.from_arrays({n: jnp.asarray(a) for n, a in arrays.items()})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (safetensors.SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: not a readable safetensors file ({reason})") from None
    return DistilledSet(parameterization, params, labels, learning_rate, parts[PROVENANCE])


def _stored(distilled: DistilledSet) -> dict[str, Any]:
    """All arrays of the file. What cannot be stored as it is stays as it is, to be refused."""
    arrays = dict(distilled.parameterization.to_arrays(distilled.params))
    labels = np.asarray(distilled.labels)
    if labels.dtype.kind in "iu" and np.array_equal(labels, labels.astype(np.int32)):
        labels = labels.astype(np.int32)
    with np.errstate(over="ignore"):
        rate = np.asarray(distilled.learning_rate).astype(np.float32)
    return arrays | {LABELS: labels, LEARNING_RATE: rate}


def _parse(text: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The description and the provenance, both objects, and the digests where there are any."""
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
    for name in header:
        if name not in (PARAMETERIZATION, PROVENANCE):
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
    parameterization: Parameterization, found: Mapping[str, tuple[str, tuple[int, ...]]]
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
