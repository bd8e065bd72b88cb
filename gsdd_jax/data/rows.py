"""Reads rows of arrays larger than memory, from the files that the arrays are mapped from.

A mapped page counts as the process's memory once touched. What is read here does not, and threads
read concurrently.
"""

import contextlib
import math
import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Shaped

from gsdd_jax.core.errors import UsageError

PIECE = 2**22  # bytes per piece of `pieces`


def take(
    array: Shaped[np.ndarray, "n ..."], indices: Int[np.ndarray, "*k"]
) -> Shaped[np.ndarray, "..."]:
    """Returns `array[indices]` [*k, ...], for indices in [0, n).

    Raises UsageError if the file was truncated.
    """
    with _file(array) as (descriptor, start):
        if descriptor is None:
            return array[indices]
        rows = np.empty((indices.size, *array.shape[1:]), array.dtype)
        for row, index in zip(rows, indices.ravel().tolist(), strict=True):
            _read(descriptor, start + index * row.nbytes, row)
        return rows.reshape(*indices.shape, *array.shape[1:])


def pieces(array: Shaped[np.ndarray, "n ..."]) -> Iterator[Shaped[np.ndarray, "m ..."]]:
    """Yields the array in order, in pieces of at most `PIECE` bytes. Raises like `take`."""
    per_row = array.itemsize * math.prod(array.shape[1:])
    size = max(1, PIECE // max(1, per_row))
    with _file(array) as (descriptor, offset):
        for first in range(0, len(array), size):
            if descriptor is None:
                yield array[first : first + size]
                continue
            piece = np.empty((min(size, len(array) - first), *array.shape[1:]), array.dtype)
            _read(descriptor, offset + first * per_row, piece)
            yield piece


@contextlib.contextmanager
def _file(array) -> Iterator[tuple[int | None, int]]:
    """Yields an open file with the array's bytes and their offset; (None, 0) if in memory."""
    mapped = array if isinstance(array, np.memmap) else array.base
    descriptor, start = None, 0
    # A cache may be deleted while in use: the mapping keeps its content.
    if isinstance(mapped, np.memmap) and array.flags.c_contiguous:
        with contextlib.suppress(OSError):
            descriptor = os.open(mapped.filename, os.O_RDONLY)
            start = mapped.offset + array.ctypes.data - mapped.ctypes.data
    try:
        yield descriptor, start
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _read(descriptor, offset, out) -> None:
    """Fills a contiguous array from the file, starting at `offset`."""
    left = memoryview(out.reshape(-1).view(np.uint8))
    while left:
        count = os.preadv(descriptor, [left], offset)
        if not count:
            raise UsageError(
                f"data: a file of the cache ends at byte {offset}, where more was expected; delete "
                "the cache and start again"
            )
        left, offset = left[count:], offset + count
