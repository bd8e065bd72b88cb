"""The data set's transform: from [0, 1] images to what the networks see, and back.

To synthetic images it is applied after rendering, inside the differentiated function; to real ones
once, or as they are drawn (`RealImages`). The transforms are pytrees, so that they pass through
`jit` as arguments.
"""

import dataclasses
import math
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import logging
from jaxtyping import Array, Float, Float32, Int, UInt8

from gsdd_jax.core.files import write_atomically
from gsdd_jax.portable import transforms as portable

MOST_WHITENED = 2**31
"""Bytes that a set of images may take as float32 to be kept whitened: CIFAR's 50,000 take 614 MB,
100,000 of 64 x 64 take 4.9 GB.

A constant, not a part of the memory that is free: the bits of a matrix product may depend on how
many images are multiplied at once, so what is free at the moment would decide about a result."""

_WHITENED_AT_ONCE = 1000  # images; of 32 x 32 x 3 their products fill a processor


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class RealImages:
    """Real images on a device, as bytes or as what networks see; a pytree.

    `real[indices]` are images as networks see them. Where that would be too much at once,
    `real.seen(real.stored[indices])` transforms them later.
    """

    # float32: transformed; None: they are elsewhere, and only `seen` is of use
    stored: UInt8[Array, "n h w c"] | Float[Array, "n h w c"] | Any
    transform: Any  # callable: [0, 1] images -> what networks see

    def __getitem__(self, indices: Int[Array, "*n"]) -> Float[Array, "*n h w c"]:
        return self.seen(self.stored[indices])

    def seen(
        self, stored: UInt8[Array, "*n h w c"] | Float[Array, "*n h w c"]
    ) -> Float[Array, "*n h w c"]:
        """Some of `stored` as networks see them."""
        return self.transform(to_unit(stored)) if stored.dtype == jnp.uint8 else stored


def to_device(images: UInt8[np.ndarray, "n h w c"], transform: Any) -> RealImages:
    """Real images to draw from: whitened now where `transform` is a ZCA and they take at most
    `MOST_WHITENED` bytes, else bytes that are transformed whenever they are drawn.

    Whitening an image of 32 x 32 is 19 million multiply-adds, more than a narrow network's step on
    it. Normalisation costs less than the three quarters of a float32 that a byte saves to read.
    """
    if is_whitened(images, transform):
        return RealImages(_whitened(transform, jnp.asarray(images)), transform)
    return RealImages(jnp.asarray(images), transform)


def is_whitened(images: UInt8[np.ndarray, "n h w c"], transform: Any) -> bool:
    """Whether `to_device` whitens them."""
    return isinstance(transform, ZCA) and 4 * images.size <= MOST_WHITENED


@jax.jit
def _whitened(zca, images):
    """All images, in parts of one size; the last part reaches back into the one before."""
    count = len(images)
    size = min(_WHITENED_AT_ONCE, count)

    def part(i, whitened):
        start = jnp.minimum(i * size, count - size)
        chunk = zca(to_unit(jax.lax.dynamic_slice_in_dim(images, start, size)))
        return jax.lax.dynamic_update_slice_in_dim(whitened, chunk, start, 0)

    return jax.lax.fori_loop(0, -(-count // size), part, jnp.zeros(images.shape))


def fit_zca(images: UInt8[np.ndarray, "n h w c"]) -> ZCA:
    """Fit ZCA whitening to training images, in float64 on the host; as `portable.whitening`."""
    mean, matrix = portable.whitening(images)
    return ZCA(jnp.asarray(mean, jnp.float32), jnp.asarray(matrix, jnp.float32))


def cached_zca(
    images: UInt8[np.ndarray, "n h w c"],
    fingerprint: str,
    cache_dir: str | os.PathLike | None = None,
) -> ZCA:
    """As `cached_whitening`, on the device."""
    mean, matrix = cached_whitening(images, fingerprint, cache_dir)
    return ZCA(jnp.asarray(mean), jnp.asarray(matrix))


def cached_whitening(
    images: UInt8[np.ndarray, "n h w c"],
    fingerprint: str,
    cache_dir: str | os.PathLike | None = None,
) -> tuple[Float32[np.ndarray, "d"], Float32[np.ndarray, "d d"]]:
    """Mean and matrix of `fit_zca` on the host, kept in a file named for the content of the images.

    Args:
        images: training images.
        fingerprint: of letters, digits, `.`, `_` and `-`; images that differ have different ones.
        cache_dir: default $XDG_CACHE_HOME/gsdd_jax, or ~/.cache/gsdd_jax. A file there that is
            damaged or of another content is replaced; where nothing can be written, nothing is
            kept.

    Raises:
        UsageError, ValueError: as `fit_zca`; ValueError for other characters in the fingerprint.
    """
    portable.check_images(images)
    if not re.fullmatch(r"[\w.-]+", fingerprint, re.ASCII):
        raise ValueError(
            f"cached_whitening: fingerprint {fingerprint!r} names a file, expected letters, "
            "digits, '.', '_' and '-'; pass a hexadecimal digest"
        )
    path = portable.kept_at(fingerprint, cache_dir)
    kept = portable.kept(path, fingerprint, images.shape[1:])
    if kept is not None:
        return kept.mean, kept.whitening
    mean, matrix = (a.astype(np.float32) for a in portable.whitening(images))
    tensors = {"mean": mean, "whitening": matrix}
    try:
        write_atomically(path, safetensors.numpy.save(tensors, {portable.KEPT: fingerprint}))
    except OSError as error:
        logging.warning("ZCA is not cached in %s: %s", path, error)
    return mean, matrix
