"""Reads images from disk on demand, ahead of the computation, by Grain."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int, UInt8

from gsdd_jax.data import rows

# grain is imported on use: it takes a second, and most sets are held on the device.

AT_ONCE = 2**27
"""Bytes of images per compiled call and of the read-ahead. More would not help a computation that
takes longer than reading."""

_THREADS = 8  # mostly waiting for the disk


def items_at_once(shape: tuple[int, ...]) -> int:
    """Returns how many items of that shape `AT_ONCE` bytes hold; at least one."""
    return max(1, AT_ONCE // math.prod(shape))


def ahead(
    images: UInt8[np.ndarray, "n h w c"],
    indices: Callable[[int], Int[np.ndarray, "..."]],
    first: int,
    end: int,
    shape: tuple[int, ...],
) -> Iterator[UInt8[np.ndarray, "..."]]:
    """Yields `images[indices(item)]` for the items in [first, end), in order, read by threads.

    Several threads call `indices`, a pure function. Starting later gives the same items from there
    on. The items' `shape` decides how many are read ahead.
    """
    import grain

    items = grain.MapDataset.range(first, end).map(lambda item: rows.take(images, indices(item)))
    # Two at least, so that one is read while the other is used.
    options = grain.ReadOptions(
        num_threads=_THREADS, prefetch_buffer_size=max(2, min(64, items_at_once(shape)))
    )
    return iter(items.to_iter_dataset(options))
