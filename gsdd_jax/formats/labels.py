"""Soft labels in a file: a logit per image and class, as a code on a fixed grid.

The grid has 2 ** bits values from 0 to `HIGHEST`. It need not be learned: a softmax depends only on
differences. Codes are range-coded where that takes fewer bytes than their bits. An image's own
class and all others have a table of frequencies each; so has the second class of a mixture.

Where most codes of an image are equal, as with few logits of many classes, fewer bytes hold the
most frequent one once per image, and a symbol of its own wherever it recurs. A table of zeros
marks such a payload.
"""

import reprlib
from typing import Any

import numpy as np

from gsdd_jax.core import memory
from gsdd_jax.core.errors import UsageError, located
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


def check_size(count: int, size: int) -> None:
    """Raises UsageError for more codes than `size` bytes plausibly hold, or than memory does."""
    check_codes(SOFT_LABELS, count, size)
    memory.check(f"{SOFT_LABELS}: {count:,} codes", 4 * count, COPIES)


def unpack(
    payload: UInt8[np.ndarray, "bytes"],
    bits: int,
    classes: Int[np.ndarray, "m p"],
    num_classes: int,
) -> Float[np.ndarray, "m k"]:
    """Unpacks logits: the inverse of `pack`; raises UsageError for bytes that it does not write."""
    count = len(classes) * num_classes
    check_size(count, len(payload))
    most = entropy.packed_bytes([bits], count)
    if len(payload) > most:
        raise UsageError(f"{SOFT_LABELS}: expected at most {most} bytes, got {len(payload)}")
    if len(payload) == most:
        (found,) = entropy.unpack(payload, [bits], count)
        found = found.reshape(-1, num_classes)
    else:
        with located(SOFT_LABELS):
            found = _decoded(payload, 2**bits, classes, num_classes)
    if not np.array_equal(_packed(found, bits, classes), payload):
        raise UsageError(f"{SOFT_LABELS}: {len(payload)} bytes are not what their codes take")
    return values(found, bits)


def _packed(found, bits, classes):
    fixed, levels = entropy.pack([found.ravel()], [bits]), 2**bits
    if len(fixed) <= levels * _num_tables(classes, found.shape[1]):  # without the coder
        return fixed
    most = _most_frequent(found, levels)
    marked = np.where(found == most[:, None], levels, found)
    coded = [
        _coded(found, levels, classes),
        np.concatenate([np.zeros(levels, np.uint8), _coded(marked, levels + 1, classes, most)]),
    ]
    shortest = min(coded, key=len)  # of equals, the first
    shorter = len(shortest) < len(fixed) and plausible(found.size, len(shortest))
    return shortest if shorter else fixed


def _coded(found, levels, classes, most=None):
    """Returns tables of frequencies, then the codes; those of `most`, one per image, come first."""
    columns = np.take_along_axis(found, _own_first(classes, found.shape[1]), 1).T
    tables = [entropy.table(c.ravel(), levels) for c in _groups(columns, classes)]
    by_column = _by_column(tables, len(columns))
    if most is None:
        return np.concatenate([*tables, entropy.encode(list(columns), by_column)])
    of_most = entropy.table(most, levels - 1)
    coded = entropy.encode([most, *columns], [of_most, *by_column])
    return np.concatenate([of_most, *tables, coded])


def _decoded(payload, levels, classes, num_classes):
    """Inverts `_coded`."""
    marked = len(payload) >= levels and not payload[:levels].any()
    sizes = _num_tables(classes, num_classes) * [levels + marked]
    if marked:
        payload, sizes = payload[levels:], [levels, *sizes]
    ends = np.cumsum(sizes)
    tables = np.split(payload[: ends[-1]], ends[:-1])
    if len(payload) <= ends[-1] or not all(table.any() for table in tables):
        raise UsageError(f"expected {len(sizes)} tables of frequencies before codes")
    first = tables[:marked]
    by_column = [*first, *_by_column(tables[marked:], num_classes)]
    columns = entropy.decode(payload[ends[-1] :], by_column, len(classes))
    found = np.empty((len(classes), num_classes), np.int32)
    np.put_along_axis(found, _own_first(classes, num_classes), np.stack(columns[marked:], 1), 1)
    return np.where(found == levels, columns[0][:, None], found) if marked else found


def _most_frequent(found, levels):
    """Returns the most frequent code of each image, of equals the least."""
    counts = [np.count_nonzero(found == code, 1) for code in range(levels)]
    return np.argmax(counts, 0).astype(np.int32)


def _groups(columns, classes):
    """Returns the columns that have a table each: those of an image's parts, then all others."""
    count = _num_tables(classes, len(columns))
    return [*columns[: count - 1], columns[count - 1 :]]


def _by_column(tables, num_columns):
    return tables + (num_columns - len(tables)) * tables[-1:]


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
