"""Soft labels in a file: of each image a logit for every class, one of a few values on a grid.

The grid has 2 ** bits values from 0 to `HIGHEST`. Only differences matter to a softmax, so nothing
of it is learned, and a code is all that is stored of a logit.
"""

from __future__ import annotations

import math
import reprlib
from typing import Any

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import entropy
from gsdd_jax.formats.shapes import Float, UInt8

SOFT_LABELS, LABEL_BITS = "soft_labels", "label_bits"  # of a file
BITS = (2, 8)  # of a code, the fewest and the most
HIGHEST = 8.0  # of the grid; against zeros its probability is 0.997 in ten classes


def codes(logits: Any, bits: int) -> Any:
    """Of the nearest values on the grid, in float32: whole numbers from 0 to 2 ** bits - 1.

    A product and a rounding, which NumPy and every device compute to the same bits.
    """
    most = 2**bits - 1
    return (logits * np.float32(most / HIGHEST)).round().clip(0, most)


def values(codes: Any, bits: int) -> Any:
    """The logits that codes stand for."""
    return codes.astype(np.float32) * np.float32(HIGHEST / (2**bits - 1))


def softmax(logits: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m k"]:
    """The probabilities that a network learns of each image, in NumPy."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def check_bits(value: Any) -> None:
    """Raises UsageError for bits that codes have not."""
    least, most = BITS
    if type(value) is not int or not least <= value <= most:
        raise UsageError(
            f"{LABEL_BITS}: expected an integer from {least} to {most}, got {reprlib.repr(value)}"
        )


def pack(
    logits: Float[np.ndarray, "..."], bits: int, expected: tuple[int, int]
) -> UInt8[np.ndarray, "bytes"]:
    """The codes of all. Raises UsageError for what is not on the grid, or not of that shape."""
    check_bits(bits)
    if logits.shape != expected:
        raise UsageError(
            f"{SOFT_LABELS}: expected shape {list(expected)}, of images and classes, got "
            f"{list(logits.shape)}"
        )
    nearest = codes(logits, bits)
    if wrong := int((values(nearest, bits) != logits).sum()):  # NaN among them
        raise UsageError(
            f"{SOFT_LABELS}: expected logits on the grid of {2**bits} values, got {wrong} beside it"
        )
    return entropy.pack([nearest.astype(np.int32).ravel()], [bits])


def unpack(
    payload: UInt8[np.ndarray, "bytes"], bits: int, shape: tuple[int, int]
) -> Float[np.ndarray, "m k"]:
    """The inverse of `pack`."""
    (found,) = entropy.unpack(payload, [bits], math.prod(shape))
    if not np.array_equal(entropy.pack([found], [bits]), payload):
        raise UsageError(f"{SOFT_LABELS}: expected zeros after the last code")
    return values(found, bits).reshape(shape)
