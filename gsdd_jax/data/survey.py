"""Settings of a data set by its pictures: pixels per side, and bits of 16-bit gray ones.

Files are opened, but decoded only if they have 16 bits.
"""

import concurrent.futures
import statistics

from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.data import media, pictures
from gsdd_jax.data.items import Item
from gsdd_jax.data.quiet import quietly

RESOLUTIONS = (8, 1024)  # least and most pixels per side
SIDES = (16, 28, 32, 48, 64)  # of which one is chosen, unless pictures are smaller


def settings(
    kind: media.Pictures | media.Clips,
    resolution: int | None,
    depth: int | None,
    train: list[Item],
    test: list[Item],
) -> tuple[int, int, list[str]]:
    """Returns pixels per side, bits used of 16, and a note on each that was not given.

    Unreadable files count for nothing. Raises UsageError for a setting that is invalid.
    """
    least, most = RESOLUTIONS
    if resolution is not None and not least <= resolution <= most:
        raise UsageError(
            f"--resolution: expected {least} to {most} pixels per side, got {resolution}"
        )
    if depth is not None and depth not in pictures.DEPTHS:
        known = ", ".join(map(str, pictures.DEPTHS))
        raise UsageError(f"--depth: expected one of {known}, got {depth}")
    if resolution is not None and depth is not None:
        return resolution, depth, []
    with quietly(), concurrent.futures.ThreadPoolExecutor() as pool:
        headers = list(pool.map(lambda item: kind.header(item, depth is None), train + test))
    notes = []
    if resolution is None:
        sides = [header.short for header in headers[: len(train)] if header]
        median = statistics.median_low(sides) if sides else SIDES[-1]
        resolution = max([side for side in SIDES if side <= median], default=max(least, median))
        notes.append(
            f"{resolution} pixels per side, since half of the training {kind.noun}s have shorter "
            f"sides of at most {median:,} (--resolution)"
        )
    if depth is None:
        largest = [h.largest for h in headers if h and h.largest is not None]
        depth, more = _depth(largest, kind.noun)
        notes += more
    return resolution, depth, notes


def _depth(largest: list[int], noun: str) -> tuple[int, list[str]]:
    """Returns the bits used in gray 16-bit pictures, and a note if there are such pictures."""
    if not largest or max(largest) > 65535:
        return 16, []
    depth = next(bits for bits in pictures.DEPTHS if max(largest) < 2**bits)
    return depth, [
        f"{counted(len(largest), noun)} with values stored in 16 bits; the largest is "
        f"{max(largest)}, so {depth} bits are used (--depth)"
    ]
