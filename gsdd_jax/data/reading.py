"""Images that are read from disk as they are needed, ahead of the computation, by Grain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int, UInt8

from gsdd_jax.data import rows

# grain is imported where it is used: it takes a second, and most sets are held on the device.

AT_ONCE = 2**27
"""Bytes of images that a compiled call is given, and that lie read ahead of it: of a computation
that takes longer than reading, more would change nothing."""

_THREADS = 8  # that read; they wait for the disk most of the time


def items_at_once(shape: tuple[int, ...]) -> int:
    """How many items of images of that shape `AT_ONCE` bytes hold; at least one."""
    return max(1, AT_ONCE // math.prod(shape))


def ahead(
    images: UInt8[np.ndarray, "n h w c"],
    indices: Callable[[int], Int[np.ndarray, "..."]],
    first: int,
    end: int,
    shape: tuple[int, ...],
) -> Iterator[UInt8[np.ndarray, "..."]]:
    """`images[indices(item)]` for the items from `first` on, in order, read by threads.

    Args:
      images: in memory or mapped from a file, from which they are read then.
      indices: of an item's images; a function of the item alone, called by several threads.
      first, end: an iterator from any item on gives what one from 0 on gives there.
      shape: of what an item is, by which it is decided how many are read ahead.
    """
    import grain

    items = grain.MapDataset.range(first, end).map(lambda item: rows.take(images, indices(item)))
    # Two at least, so that one is read while the other is used.
    options = grain.ReadOptions(
        num_threads=_THREADS, prefetch_buffer_size=max(2, min(64, items_at_once(shape)))
    )
    return iter(items.to_iter_dataset(options))
