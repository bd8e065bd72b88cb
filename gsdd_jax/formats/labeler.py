"""Labeler of a set: a small ConvNet, stored with the images, that labels any view of them.

Soft labels of a teacher say what it sees in the stored images. A labeler is the teacher itself, so
that views under augmentation and mixtures have labels of their own, whatever their number. Its
bytes count. It is the field's ConvNet, as `networks.convnet` computes it.

A weight is a whole multiple of a step, which the weights of one output share. The multiples of
each layer are range-coded by its frequencies, where that takes fewer bytes than their bits. Steps
and vectors are in bfloat16.
"""

import dataclasses
import functools
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError, located
from gsdd_jax.core.fields import check_value
from gsdd_jax.formats import entropy
from gsdd_jax.formats.base import check_codes
from gsdd_jax.formats.labels import softmax
from gsdd_jax.formats.shapes import Float, Int, UInt8

LABELER = "labeler"  # name of its settings in a file
WEIGHTS = "labeler_weights"  # name of its array
ALONE = "expected no labeler, got one of its own classes"  # where several sets are joined
WIDTH, DEPTH, WEIGHT_BITS = (1, 1024), (1, 16), (3, 8)  # least and most
TEMPERATURE = 0.01, 1000.0
COPIES = 16  # memory of decoding, in copies of the weights
_EPSILON = 1e-5  # of instance norm
_CLIPPED = np.linspace(0.4, 1, 13)  # parts of a column's largest weight that its codes may reach
_AT_ONCE = 1 << 22  # numbers of a layer: images that are labeled together
_LAYERS = 6  # memory of labeling, in copies of a layer
Layers = list[tuple[int, int]]  # inputs and outputs of each layer, the classifier last


@dataclasses.dataclass(frozen=True, eq=False)
class Labeler:
    """Labeler in NumPy.

    Attributes:
      image_shape, num_classes: of the set; images are those that its transform returns.
      width, depth: channels per layer, and number of blocks.
      bits: bits per weight; fewer where they are range-coded.
      temperature: divides the outputs before the softmax.
      payload: weights as stored.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    width: int
    depth: int
    bits: int
    temperature: float
    payload: UInt8[np.ndarray, "bytes"] = dataclasses.field(repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for a file's header."""
        return {name: getattr(self, name) for name in _RANGES}

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Float32 weights by name: `kernel0` [3, 3, c, width], `scale0` and `shift0` [width] to
        those of the last block; then `kernel` [inputs, classes] and `bias` [classes]. Read-only.

        Raises UsageError for invalid bytes.
        """
        codes, steps, vectors = self._decoded()
        pairs = zip(codes.items(), steps, strict=True)
        with np.errstate(over="ignore"):
            found = vectors | {name: np.float32(of) * step for (name, of), step in pairs}
        if not all(np.isfinite(of).all() for of in found.values()):
            raise UsageError(f"{LABELER}: expected finite weights, got larger ones")
        found = {name: found[name].reshape(s) for name, s in shapes_of(*self._network).items()}
        for array in found.values():
            array.flags.writeable = False
        return found

    @property
    def _network(self) -> tuple[tuple[int, int, int], int, int, int]:
        return self.image_shape, self.num_classes, self.width, self.depth

    def logits(self, images: Float[np.ndarray, "m h w c"]) -> Float[np.ndarray, "m k"]:
        """Returns the outputs for images as the networks take them, transformed.

        Raises ValueError for images of another shape, UsageError for outputs that are not finite
        and if memory cannot hold a layer.
        """
        images = np.asarray(images)
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"images: expected shape [m, {', '.join(map(str, self.image_shape))}], got "
                f"{list(images.shape)}"
            )
        height, width, channels = self.image_shape
        layer = height * width * max(self.width, channels)
        memory.check(f"{LABELER}: a layer of an image", 4 * layer, _LAYERS)
        count = max(1, _AT_ONCE // layer)
        parts = [images[i : i + count] for i in range(0, len(images), count)]
        with np.errstate(all="ignore"):  # reported below
            found = [self._logits(part.astype(np.float32)) for part in parts]
        logits = np.concatenate(found or [np.zeros((0, self.num_classes), np.float32)])
        if not np.isfinite(logits).all():
            raise UsageError(
                f"{LABELER}: expected finite outputs, got others: its weights or the images are "
                "too large"
            )
        return logits

    def probabilities(self, images: Float[np.ndarray, "m h w c"]) -> Float[np.ndarray, "m k"]:
        """Returns the class probabilities of images; see `logits`."""
        found = self.logits(images) / np.float32(self.temperature)
        return softmax(found) if len(found) else found

    def of_classes(self, chosen: Int[np.ndarray, "k"]) -> "Labeler":
        """Returns the labeler of some classes: probabilities given that an image is of these."""
        codes, steps, vectors = self._decoded()
        codes["kernel"], steps[-1] = codes["kernel"][:, chosen], steps[-1][chosen]
        vectors["bias"] = vectors["bias"][chosen]
        payload = _encoded(codes, steps, vectors, self.bits)
        return dataclasses.replace(self, num_classes=len(chosen), payload=payload)

    def _decoded(self):
        with located(LABELER):
            return _decoded(self.payload, layers_of(*self._network), self.bits)

    def _logits(self, x):
        weights = self.weights
        for i in range(self.depth):
            height, width = x.shape[1:3]
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            kernel = weights[f"kernel{i}"]
            x = sum(
                padded[:, row : row + height, column : column + width] @ kernel[row, column]
                for row in range(3)
                for column in range(3)
            )
            x = x - x.mean((1, 2), keepdims=True)
            x = x / np.sqrt(np.square(x).mean((1, 2), keepdims=True) + np.float32(_EPSILON))
            x = np.maximum(x * weights[f"scale{i}"] + weights[f"shift{i}"], 0)
            even = x[:, : height // 2 * 2, : width // 2 * 2]
            x = even.reshape(len(x), height // 2, 2, width // 2, 2, -1).mean((2, 4))
        return x.reshape(len(x), -1) @ weights["kernel"] + weights["bias"]


_RANGES = {
    "width": ("int", WIDTH),
    "depth": ("int", DEPTH),
    "bits": ("int", WEIGHT_BITS),
    "temperature": ("float", TEMPERATURE),
}


def check_settings(found: Any) -> None:
    """Raises UsageError for settings of a file's header that are none of a labeler."""
    if not isinstance(found, dict) or found.keys() != _RANGES.keys():
        raise UsageError(
            f"{LABELER}: expected an object with {', '.join(_RANGES)}, got {reprlib.repr(found)}"
        )
    for name, (kind, limits) in _RANGES.items():
        check_value(f"{LABELER}.{name}", kind, found[name], limits)


def automatic_depth(size: int) -> int:
    """Returns a ConvNet's number of blocks for images of `size` pixels per side."""
    return max(1, size.bit_length() - 3)


def layers_of(
    image_shape: tuple[int, int, int], num_classes: int, width: int, depth: int
) -> Layers:
    """Returns inputs and outputs of each layer.

    Raises UsageError for images too small for so many blocks.
    """
    height, wide, channels = image_shape
    if min(height, wide) < 2**depth:
        raise UsageError(
            f"{LABELER}: expected images of at least {2**depth} pixels per side for "
            f"depth={depth}, got {height} x {wide}"
        )
    blocks = [(9 * (width if i else channels), width) for i in range(depth)]
    return [*blocks, ((height >> depth) * (wide >> depth) * width, num_classes)]


def shapes_of(
    image_shape: tuple[int, int, int], num_classes: int, width: int, depth: int
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of `Labeler.weights`; raises as `layers_of`."""
    *blocks, last = layers_of(image_shape, num_classes, width, depth)
    found: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(blocks):
        found[f"kernel{i}"] = 3, 3, inputs // 9, outputs
        found |= {f"scale{i}": (outputs,), f"shift{i}": (outputs,)}
    return found | {"kernel": last, "bias": last[1:]}


def most_bytes(
    image_shape: tuple[int, int, int], num_classes: int, width: int, depth: int, bits: int
) -> int:
    """Returns the bytes of a labeler without range coding; raises as `layers_of`."""
    layers = layers_of(image_shape, num_classes, width, depth)
    return _vector_bytes(layers) + entropy.packed_bytes([bits], _num_codes(layers))


def of_weights(
    weights: Mapping[str, Float[np.ndarray, "..."]],
    image_shape: tuple[int, int, int],
    *,
    width: int,
    depth: int,
    bits: int,
    temperature: float,
) -> Labeler:
    """Returns the labeler nearest to a network's weights, named as `Labeler.weights`.

    The step of each output has the least squared error of 13.
    """
    num_classes, most = len(weights["bias"]), 2 ** (bits - 1) - 1
    codes, steps = {}, []
    for name in _kernel_names(layers_of(image_shape, num_classes, width, depth)):
        kernel = np.asarray(weights[name], np.float32)
        kernel = kernel.reshape(-1, kernel.shape[-1])
        tried = [_on_grid(kernel, part, most) for part in _CLIPPED]
        errors = [np.square(c * step - kernel).sum(0) for c, step in tried]
        best, columns = np.argmin(errors, 0), np.arange(kernel.shape[1])
        codes[name] = np.stack([c for c, _ in tried])[best, :, columns].T.astype(np.int32)
        steps.append(np.stack([step for _, step in tried])[best, columns])
    vectors = {n: _to_half(np.asarray(w)) for n, w in weights.items() if n not in codes}
    payload = _encoded(codes, steps, vectors, bits)
    return Labeler(image_shape, num_classes, width, depth, bits, temperature, payload)


def _on_grid(kernel, part, most):
    """Returns codes, and steps of which `most` reach that part of a column's largest weight."""
    steps = _to_half(np.abs(kernel).max(0) * np.float32(part / most))
    safe = np.where(steps > 0, steps, 1)
    return np.rint(kernel / safe).clip(-most, most), steps


def _encoded(codes, steps, vectors, bits) -> UInt8[np.ndarray, "bytes"]:
    most = 2 ** (bits - 1) - 1
    layers = [c.shape for c in codes.values()]
    halves = np.concatenate([*steps, *(vectors[n] for n in _vector_names(layers))])
    head = (halves.astype(np.float32).view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    shifted = [c.ravel() + most for c in codes.values()]
    fixed = entropy.pack([np.concatenate(shifted)], [bits])
    tables = [entropy.table(c, 2 * most + 1) for c in shifted]
    coded = np.concatenate([*tables, entropy.encode(shifted, tables)])
    return np.concatenate([head, min(fixed, coded, key=len)])  # of equals, the first


def _decoded(payload, layers, bits):
    """Inverts `_encoded`; raises UsageError for bytes that it does not write."""
    head = _vector_bytes(layers)
    most = head + entropy.packed_bytes([bits], _num_codes(layers))
    if not head < len(payload) <= most:
        raise UsageError(f"expected {head + 1:,} to {most:,} bytes, got {len(payload):,}")
    numbers = (payload[:head].view("<u2").astype(np.uint32) << 16).view(np.float32)
    if not np.isfinite(numbers).all():
        raise UsageError("expected finite numbers, got others")
    outputs = [out for _, out in layers]
    of_steps, of_vectors = np.split(numbers, [sum(outputs)])
    steps = np.split(of_steps, np.cumsum(outputs)[:-1])
    ends = np.cumsum(np.repeat(outputs[:-1], 2))  # the rest is the bias
    vectors = dict(zip(_vector_names(layers), np.split(of_vectors, ends), strict=True))
    found = _decoded_codes(payload[head:], layers, bits)
    codes = dict(zip(_kernel_names(layers), found, strict=True))
    if not np.array_equal(_encoded(codes, steps, vectors, bits), payload):
        raise UsageError(f"{len(payload):,} bytes are not what its codes take")
    return codes, steps, vectors


def _decoded_codes(payload, layers, bits) -> list[Int[np.ndarray, "i o"]]:
    sizes, most = [math.prod(layer) for layer in layers], 2 ** (bits - 1) - 1
    fixed = entropy.packed_bytes([bits], sum(sizes))
    if len(payload) == fixed:
        (every,) = entropy.unpack(payload, [bits], sum(sizes))
        found = np.split(every, np.cumsum(sizes)[:-1])
    else:
        levels = 2 * most + 1
        tables, coded = np.split(payload, [levels * len(layers)])
        if not len(coded) or not all(of.any() for of in tables.reshape(-1, levels)):
            raise UsageError(
                f"expected {len(layers) * levels:,} bytes of frequencies before codes, or "
                f"{fixed:,} bytes in all, got {len(payload):,}"
            )
        found = entropy.decode(coded, list(tables.reshape(-1, levels)), np.array(sizes))
    if max(codes.max() for codes in found) > 2 * most:
        raise UsageError(f"expected codes from {-most} to {most}, got others")
    return [codes.reshape(layer) - most for codes, layer in zip(found, layers, strict=True)]


def check_size(layers: Layers, size: int) -> None:
    """Raises UsageError for more weights than `size` bytes plausibly hold, or than memory does."""
    count = _num_codes(layers)
    check_codes(LABELER, count, size)
    memory.check(f"{LABELER}: {count:,} weights", 4 * count, COPIES)


def _vector_names(layers) -> list[str]:
    pairs = [(f"scale{i}", f"shift{i}") for i in range(len(layers) - 1)]
    return [name for pair in pairs for name in pair] + ["bias"]


def _kernel_names(layers) -> list[str]:
    return [*(f"kernel{i}" for i in range(len(layers) - 1)), "kernel"]


def _vector_bytes(layers: Layers) -> int:
    """Returns the bytes of steps, scales, shifts and biases."""
    blocks, (_, classes) = layers[:-1], layers[-1]
    return 2 * (3 * sum(out for _, out in blocks) + 2 * classes)


def _num_codes(layers: Layers) -> int:
    return sum(math.prod(layer) for layer in layers)


def _to_half(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Rounds to bfloat16, to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
