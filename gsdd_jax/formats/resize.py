"""Images at another size: half-pixel centres, edges repeated, nothing smoothed where it shrinks."""

from __future__ import annotations

import numpy as np

from gsdd_jax.formats.shapes import Float


def resize(
    images: Float[np.ndarray, "m h w c"], height: int, width: int, resample: str
) -> Float[np.ndarray, "m {height} {width} c"]:
    """By "bilinear" or "nearest" interpolation; float32."""
    for axis, count in ((1, height), (2, width)):
        native = images.shape[axis]
        if count == native:
            continue
        if resample == "nearest":
            images = images.take((2 * np.arange(count) + 1) * native // (2 * count), axis)
            continue
        at = (np.arange(count) + 0.5) * native / count - 0.5
        below = np.floor(at).astype(int)
        part = (at - below).astype(np.float32).reshape(-1, *[1] * (3 - axis))
        low, high = (images.take(np.clip(i, 0, native - 1), axis) for i in (below, below + 1))
        images = (1 - part) * low + part * high
    return images
