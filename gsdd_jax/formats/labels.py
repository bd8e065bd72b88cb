"""Soft labels in a file: a logit per image and class, as a code on a fixed grid.

The grid has 2 ** bits values from 0 to `HIGHEST`. It need not be learned: a softmax depends only on
differences. Codes are range-coded where that takes fewer bytes than their bits. An image's own
class and all others have a table of frequencies each; so has the second class of a mixture.
"""

import reprlib
from typing import Any

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import entropy
from gsdd_jax.formats.base import check_codes, plausible
from gsdd_jax.formats.shapes import Float, Int, UInt8

SOFT_LABELS, LABEL_BITS = "soft_labels", "label_bits"  # names in a file
BITS = (2, 8)  # least and most bits of a code
COPIES = 12  # memory of decoding codes, in copies of the logits
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
    logits: Float[np.ndarray, "..."], bits: int, classes: Int[np.ndarray, "m p"], num_classes: int
) -> UInt8[np.ndarray, "bytes"]:
    """Packs logits as codes; raises UsageError for another shape, or logits not on the grid.

    `classes` are those of each image's parts: one, or two of a mixture.
    """
    check_bits(bits)
    expected = len(classes), num_classes
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
    return _packed(nearest.astype(np.int32), bits, classes)


def unpack(
    payload: UInt8[np.ndarray, "bytes"],
    bits: int,
    classes: Int[np.ndarray, "m p"],
    num_classes: int,
) -> Float[np.ndarray, "m k"]:
    """Unpacks logits: the inverse of `pack`; raises UsageError for bytes that it does not write."""
    count, levels = len(classes) * num_classes, 2**bits
    memory.check(f"{SOFT_LABELS}: {count:,} codes", 4 * count, COPIES)
    check_codes(SOFT_LABELS, count, len(payload))
    most = entropy.packed_bytes([bits], count)
    if len(payload) > most:
        raise UsageError(f"{SOFT_LABELS}: expected at most {most} bytes, got {len(payload)}")
    if len(payload) == most:
        (found,) = entropy.unpack(payload, [bits], count)
        found = found.reshape(-1, num_classes)
    else:
        count = _num_tables(classes, num_classes)
        each = np.split(payload[: count * levels], count) if len(payload) > count * levels else []
        if not each or not all(table.any() for table in each):
            raise UsageError(
                f"{SOFT_LABELS}: expected {count} tables of frequencies before the codes"
            )
        tables = each + (num_classes - count) * each[-1:]
        columns = entropy.decode(payload[count * levels :], tables, len(classes))
        found = np.empty((len(classes), num_classes), np.int32)
        np.put_along_axis(found, _own_first(classes, num_classes), np.stack(columns, 1), 1)
    if not np.array_equal(_packed(found, bits, classes), payload):
        raise UsageError(f"{SOFT_LABELS}: {len(payload)} bytes are not what their codes take")
    return values(found, bits)


def _packed(found, bits, classes):
    fixed, levels = entropy.pack([found.ravel()], [bits]), 2**bits
    columns = np.take_along_axis(found, _own_first(classes, found.shape[1]), 1).T
    count = _num_tables(classes, len(columns))
    if len(fixed) <= count * levels:
        return fixed
    groups = [columns[i : i + 1] for i in range(count - 1)] + [columns[count - 1 :]]
    tables = [entropy.table(group.ravel(), levels) for group in groups]
    by_column = tables + (len(columns) - count) * tables[-1:]
    coded = np.concatenate([*tables, entropy.encode(list(columns), by_column)])
    shorter = len(coded) < len(fixed) and plausible(found.size, len(coded))
    return coded if shorter else fixed


def _num_tables(classes, num_classes):
    """Returns the number of tables: one per part of an image, and one for the other classes."""
    return min(classes.shape[1] + 1, num_classes)


def _own_first(classes, num_classes):
    """Returns the classes in the order in which the codes of each image are coded: those of its
    parts, then the others from the first part's on."""
    keys = 2 * ((np.arange(num_classes) - classes[:, :1]) % num_classes)
    for part in classes[:, 1:].T:
        at = np.arange(len(classes)), part
        keys[at] = np.minimum(keys[at], 1)
    return np.argsort(keys, 1, kind="stable")
