"""The data set's transform: from [0, 1] images to what the networks see, and back.

It is applied after rendering, inside the differentiated function. The transforms are pytrees, so
that they pass through `jit` as arguments.
"""

import dataclasses
import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from absl import logging
from jaxtyping import Array, Float, UInt8

from gsdd_jax import files
from gsdd_jax.errors import UsageError
from gsdd_jax.files import write_atomically

ZCA_EPSILON = 0.1
MAX_ZCA_SIZE = 12288
"""Numbers of an image, height · width · channels, up to which its covariance is affordable."""

_FORMAT = "gsdd_jax.zca.1"
# Bytes centred at 128 have products of at most 2¹⁴: sums of 2¹⁰ are whole numbers that float32
# holds exactly, in whatever order they are added.
_CHUNK = 1024


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Normalize:
    """Per-channel normalisation: (x - mean) / std."""

    # Any: JAX also builds pytrees of shapes, partition specs and placeholders.
    mean: Float[Array, "c"] | Any
    std: Float[Array, "c"] | Any

    def __call__(self, images: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
        """Images in [0, 1] -> normalised images."""
        return (images - self.mean) / self.std

    def inverse(self, images: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
        """Normalised images -> images in [0, 1]."""
        return images * self.std + self.mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ZCA:
    """Whitening of flattened images: W (x - mean), with W symmetric and positive definite."""

    mean: Float[Array, "d"] | Any
    whitening: Float[Array, "d d"] | Any

    def __call__(self, images: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
        """Images in [0, 1] -> whitened images. Raises ValueError unless h w c = d."""
        centered = self._flatten(images) - self.mean
        # W is symmetric, so that rows of images are multiplied from the right.
        whitened = jnp.matmul(centered, self.whitening, precision=jax.lax.Precision.HIGHEST)
        return whitened.reshape(images.shape)

    def inverse(self, images: Float[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
        """Whitened images -> images in [0, 1]. Raises ValueError unless h w c = d."""
        flat = self._flatten(images)
        with jax.default_matmul_precision("highest"):
            solution = jax.scipy.linalg.solve(
                self.whitening, flat.reshape(-1, flat.shape[-1]).T, assume_a="pos"
            ).T
        return (solution.reshape(flat.shape) + self.mean).reshape(images.shape)

    def _flatten(self, images):
        size = math.prod(images.shape[-3:])
        if images.ndim < 3 or size != self.mean.shape[0]:
            raise ValueError(
                f"ZCA: got images of shape {images.shape}, expected [..., h, w, c] with "
                f"h w c = {self.mean.shape[0]}; fit it on images of this size"
            )
        return images.reshape(*images.shape[:-3], size)


def to_unit(
    images: UInt8[Array, "*n h w c"] | UInt8[np.ndarray, "*n h w c"],
) -> Float[Array, "*n h w c"]:
    """Bytes -> float32 in [0, 1]. Raises ValueError where they are no bytes."""
    if images.dtype != jnp.uint8:
        raise ValueError(f"to_unit: got {images.dtype} images, expected uint8; pass stored bytes")
    return jnp.asarray(images).astype(jnp.float32) / 255


def fit_zca(images: UInt8[np.ndarray, "n h w c"]) -> ZCA:
    """Fit ZCA whitening to training images, in float64 on the host (appendix A.1).

    With mean and unbiased covariance U S Uᵀ of the images flattened in [0, 1],
    W = U (S + 0.1)^{-½} Uᵀ. The covariance is summed in whole numbers: the result does not depend
    on the number of threads.

    Raises:
        UsageError: h w c is above 12288.
        ValueError: fewer than two images, or not uint8 [n, h, w, c].
    """
    size = _check(images)
    num = images.shape[0]
    total, products = np.zeros(size), np.zeros((size, size))
    for start in range(0, num, _CHUNK):
        chunk = images[start : start + _CHUNK].reshape(-1, size).astype(np.float32) - 128
        total += chunk.sum(axis=0, dtype=np.float64)
        products += chunk.T @ chunk
    products -= np.outer(total, total / num)
    products /= (num - 1) * 255**2
    mean = (total / num + 128) / 255
    variances, directions = np.linalg.eigh(products)
    # Rounding may leave the smallest variances below zero.
    scales = 1 / np.sqrt(np.maximum(variances, 0) + ZCA_EPSILON)
    half = directions * np.sqrt(scales)
    return ZCA(jnp.asarray(mean, jnp.float32), jnp.asarray(half @ half.T, jnp.float32))


def cached_zca(
    images: UInt8[np.ndarray, "n h w c"],
    fingerprint: str,
    cache_dir: str | os.PathLike | None = None,
) -> ZCA:
    """`fit_zca`, kept in a file named for the content of the images.

    Args:
        images: training images.
        fingerprint: of letters, digits, `.`, `_` and `-`; images that differ have different ones.
        cache_dir: default $XDG_CACHE_HOME/gsdd_jax, or ~/.cache/gsdd_jax. A file there that is
            damaged or of another content is replaced; where nothing can be written, nothing is
            kept.

    Raises:
        UsageError, ValueError: as `fit_zca`; ValueError for other characters in the fingerprint.
    """
    size = _check(images)
    if not re.fullmatch(r"[\w.-]+", fingerprint, re.ASCII):
        raise ValueError(
            f"cached_zca: fingerprint {fingerprint!r} names a file, expected letters, digits, "
            "'.', '_' and '-'; pass a hexadecimal digest"
        )
    if cache_dir is None:
        cache_dir = files.cache_dir()
    path = Path(cache_dir) / f"zca-{fingerprint}.safetensors"
    zca = _read(path, fingerprint, size)
    if zca is None:
        zca = fit_zca(images)
        try:
            _write(path, fingerprint, zca)
        except OSError as error:
            logging.warning("ZCA is not cached in %s: %s", path, error)
    return zca


def _check(images):
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[0] < 2:
        raise ValueError(
            f"ZCA: got {images.dtype} images of shape {images.shape}, expected two or more uint8 "
            "images [n, h, w, c]; pass the training images as stored"
        )
    size = math.prod(images.shape[1:])
    if size > MAX_ZCA_SIZE:
        raise UsageError(
            f"ZCA of {'x'.join(map(str, images.shape[1:]))} images: {size} numbers an image, "
            f"expected at most {MAX_ZCA_SIZE}; use per-channel normalisation"
        )
    return size


def _read(path, fingerprint, size):
    """The ZCA in a file, or None if it is missing, damaged or of something else."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            if file.metadata() != {_FORMAT: fingerprint}:
                return None
            mean, whitening = file.get_tensor("mean"), file.get_tensor("whitening")
    except (OSError, safetensors.SafetensorError):
        return None
    expected = [(np.float32, (size,)), (np.float32, (size, size))]
    if [(a.dtype, a.shape) for a in (mean, whitening)] != expected:
        return None
    return ZCA(jnp.asarray(mean), jnp.asarray(whitening))


def _write(path, fingerprint, zca):
    tensors = {"mean": np.asarray(zca.mean), "whitening": np.asarray(zca.whitening)}
    content = safetensors.numpy.save(tensors, {_FORMAT: fingerprint})
    write_atomically(path, content)
