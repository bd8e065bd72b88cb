"""Soft labels in a file: a logit per image and class, as a code on a fixed grid.

The grid has 2 ** bits values from 0 to `HIGHEST`. It need not be learned: a softmax depends only on
differences.
"""

import math
import reprlib
from typing import Any

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import entropy
from gsdd_jax.formats.shapes import Float, UInt8

SOFT_LABELS, LABEL_BITS = "soft_labels", "label_bits"  # names in a file
BITS = (2, 8)  # least and most bits of a code
HIGHEST = 8.0  # largest logit: a probability of 0.997 among ten classes with zeros


def codes(logits: Any, bits: int) -> Any:
    """Returns the nearest codes, whole numbers from 0 to 2 ** bits - 1, in float32.

    A product and a rounding, identical in NumPy and on every device.
    """
    most = 2**bits - 1
    return (logits * np.float32(most / HIGHEST)).round().clip(0, most)


def values(codes: Any, bits: int) -> Any:
    return codes.astype(np.float32) * np.float32(HIGHEST / (2**bits - 1))


def softmax(logits: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m k"]:
    """Returns the class probabilities of logits, in NumPy."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def check_bits(value: Any) -> None:
    least, most = BITS
    if type(value) is not int or not least <= value <= most:
        raise UsageError(
            f"{LABEL_BITS}: expected an integer from {least} to {most}, got {reprlib.repr(value)}"
        )


def pack(
    logits: Float[np.ndarray, "..."], bits: int, expected: tuple[int, int]
) -> UInt8[np.ndarray, "bytes"]:
    """Packs logits as codes; raises UsageError for another shape, or logits not on the grid."""
    check_bits(bits)
    if logits.shape != expected:
        raise UsageError(
            f"{SOFT_LABELS}: expected shape {list(expected)}, of images and classes, got "
            f"{list(logits.shape)}"
        )
    nearest = codes(logits, bits)
    if wrong := int((values(nearest, bits) != logits).sum()):  # NaN among them
        raise UsageError(
            f"{SOFT_LABELS}: expected logits on the grid of {2**bits} values, got {wrong} others"
        )
    return entropy.pack([nearest.astype(np.int32).ravel()], [bits])


def unpack(
    payload: UInt8[np.ndarray, "bytes"], bits: int, shape: tuple[int, int]
) -> Float[np.ndarray, "m k"]:
    """Unpacks logits: the inverse of `pack`."""
    (found,) = entropy.unpack(payload, [bits], math.prod(shape))
    if not np.array_equal(entropy.pack([found], [bits]), payload):
        raise UsageError(f"{SOFT_LABELS}: expected zeros after the last code")
    return values(found, bits).reshape(shape)
