"""Start images drawn by the moments of their class: none of them is a real image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from gsdd_jax.data import rows
from gsdd_jax.data.dataset import Split

CELLS = 4  # per side: neighboring pixels deviate alike, as in real images
SHARED = 0.9  # of the variance is of all channels together: brightness varies more than color


def drawn(key: Key[Array, ""], train: Split, counts: Sequence[int]) -> Float[np.ndarray, "m h w c"]:
    """Returns images in [0, 1], `counts` of each class, ordered by class.

    Each is the mean image of its class plus a smooth random field with the standard deviation of
    the class's images at each pixel, clipped. Not differentially private: the moments are exact.
    """
    found = []
    for c, count in enumerate(counts):
        mean, std = moments(train.images, np.flatnonzero(train.labels == c))
        field = np.asarray(smooth(jax.random.fold_in(key, c), (count, *mean.shape)))
        found.append(np.clip(mean + std * field, 0, 1).astype(np.float32))
    return np.concatenate(found)


def moments(
    images: Shaped[np.ndarray, "n h w c"], chosen: Shaped[np.ndarray, "m"]
) -> tuple[Float[np.ndarray, "h w c"], Float[np.ndarray, "h w c"]]:
    """Returns mean and standard deviation of the chosen images per pixel, for values in [0, 1]."""
    total, square = np.zeros((2, *images.shape[1:]), np.int64)
    for part in np.array_split(chosen, -(-len(chosen) // 256)):
        values = rows.take(images, part).astype(np.int64)  # exact sums
        total += values.sum(0)
        square += (values**2).sum(0)
    mean = total / len(chosen)
    return mean / 255, np.sqrt(np.maximum(square / len(chosen) - mean**2, 0)) / 255


def smooth(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "m h w c"]:
    """Returns fields of a standard normal distribution at every pixel, interpolated from cells."""
    count, height, width, channels = shape
    cells = [min(CELLS, side) for side in (height, width)]
    rows_, columns = (_weights(*sides) for sides in zip((height, width), cells, strict=True))
    keys = jax.random.split(key)
    of_all, own = (
        jax.random.normal(k, (count, *cells, n)) for k, n in zip(keys, (1, channels), strict=True)
    )
    values = SHARED**0.5 * of_all + (1 - SHARED) ** 0.5 * own
    return jnp.einsum("hi,wj,mijc->mhwc", rows_, columns, values, precision="highest")


def _weights(side: int, cells: int) -> Float[Array, "{side} {cells}"]:
    """Returns bilinear weights of the cells at each pixel, with squares that sum to 1."""
    weights = jax.image.resize(jnp.eye(cells), (side, cells), "linear")
    return weights / jnp.linalg.norm(weights, axis=1, keepdims=True)
