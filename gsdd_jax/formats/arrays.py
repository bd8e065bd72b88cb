"""Array functions for NumPy and JAX, and resampling."""

from typing import Any

import numpy as np

from gsdd_jax.formats.shapes import Float, Int


def namespace(*arrays: Any) -> Any:
    """Returns numpy for NumPy arrays, else the module of the first other array (jax.numpy)."""
    for array in arrays:
        if not isinstance(array, (np.ndarray, np.generic)):
            return array.__array_namespace__()
    return np


def einsum(formula: str, *arrays: Any) -> Any:
    """Computes a sum of products in float32; GPUs would otherwise round the factors."""
    xp = namespace(*arrays)
    if xp is np:
        return np.einsum(formula, *arrays, optimize=True)
    return xp.einsum(formula, *arrays, precision="highest")


def matmul(left: Any, right: Any) -> Any:
    """Multiplies matrices in float32, see `einsum`."""
    xp = namespace(left, right)
    return np.matmul(left, right) if xp is np else xp.matmul(left, right, precision="highest")


def placed(
    values: Float[Any, "m k c"], places: Int[Any, "m k"], size: int
) -> Float[Any, "m {size} c"]:
    """Returns zeros except for the values at their ascending places."""
    xp, count = namespace(values), len(values)
    whole = xp.zeros((count, size, values.shape[-1]), np.float32)
    at = np.arange(count)[:, None], places
    if xp is np:
        whole[at] = values
        return whole
    return whole.at[at].set(values, indices_are_sorted=True, unique_indices=True)


def summed(
    values: Float[Any, "*b k c"], places: Int[Any, "*b k"], size: int
) -> Float[Any, "*b {size} c"]:
    """Returns zeros plus each of the values at its place."""
    xp = namespace(values)
    whole = xp.zeros((*places.shape[:-1], size, values.shape[-1]), np.float32)
    at = (*np.ogrid[tuple(map(slice, places.shape))][:-1], places)
    if xp is np:
        np.add.at(whole, at, values)
        return whole
    return whole.at[at].add(values)


def sides(
    left: Float[np.ndarray, "y i"], images: Float[Any, "m i j c"], right: Float[np.ndarray, "x j"]
) -> Float[Any, "m y x c"]:
    """Computes left · image · rightᵀ of every image and channel."""
    return einsum("xj,myjc->myxc", right, einsum("yi,mijc->myjc", left, images))


def resize(
    images: Float[Any, "m h w c"], height: int, width: int, resample: str
) -> Float[Any, "m {height} {width} c"]:
    """Resizes by "bilinear" or "nearest": half-pixel centers, repeated edges, no smoothing."""
    native_height, native_width = images.shape[1:3]
    if (height, width) == (native_height, native_width):
        return images
    left = _weights(height, native_height, resample)
    return sides(left, images, _weights(width, native_width, resample))


def _weights(count: int, native: int, resample: str) -> Float[np.ndarray, "{count} {native}"]:
    """Returns the weight of each of `native` pixels in each of `count`."""
    if resample == "nearest":
        at = (2 * np.arange(count) + 1) * native // (2 * count)
    else:
        at = np.clip((np.arange(count) + 0.5) * native / count - 0.5, 0, native - 1)
    distance = np.abs(at[:, None] - np.arange(native))
    return np.maximum(1 - distance, 0).astype(np.float32)
