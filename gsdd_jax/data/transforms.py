"""The data set's transform, from images in [0, 1] to network inputs and back.

Synthetic images are transformed after rendering, inside the differentiated function; real ones
once, or when drawn (`RealImages`). Transforms are pytrees, so that `jit` takes them as arguments.
"""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from gsdd_jax.formats import transforms as host
from gsdd_jax.formats.transforms import ZCA, Normalize

MOST_WHITENED = 2**31
"""Most bytes of a float32 image set that is kept whitened: CIFAR's 50,000 images take 614 MB,
100,000 of 64 x 64 take 4.9 GB.

A constant: the bits of a matrix product may depend on how many images are multiplied at once, so
free memory must not decide."""

_WHITENED_AT_ONCE = 1000  # images; of 32 x 32 x 3 their products fill a processor


jax.tree_util.register_dataclass(Normalize, data_fields=["mean", "std"], meta_fields=[])
jax.tree_util.register_dataclass(
    ZCA, data_fields=["mean", "whitening"], meta_fields=["image_shape"]
)


def to_unit(
    images: UInt8[Array, "*n h w c"] | UInt8[np.ndarray, "*n h w c"],
) -> Float[Array, "*n h w c"]:
    """Converts bytes to float32 in [0, 1]. Raises ValueError for other types."""
    if images.dtype != jnp.uint8:
        raise ValueError(f"to_unit: got {images.dtype} images, expected uint8; pass stored bytes")
    return jnp.asarray(images).astype(jnp.float32) / 255


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class RealImages:
    """Real images on a device, as bytes or as network inputs; a pytree.

    `real[indices]` are network inputs. `real.transformed(real.stored[indices])` defers the
    transform if that would be too much at once.
    """

    # float32: transformed; None: stored elsewhere, only `transformed` works
    stored: UInt8[Array, "n h w c"] | Float[Array, "n h w c"] | Any
    transform: Any  # callable: [0, 1] images -> network inputs

    def __getitem__(self, indices: Int[Array, "*n"]) -> Float[Array, "*n h w c"]:
        return self.transformed(self.stored[indices])

    def transformed(
        self, stored: UInt8[Array, "*n h w c"] | Float[Array, "*n h w c"]
    ) -> Float[Array, "*n h w c"]:
        """Returns the selected `stored` images as network inputs."""
        return self.transform(to_unit(stored)) if stored.dtype == jnp.uint8 else stored


def to_device(images: UInt8[np.ndarray, "n h w c"], transform: Any) -> RealImages:
    """Moves real images to the device: whitened if `transform` is a ZCA and they take at most
    `MOST_WHITENED` bytes, else as bytes that are transformed when drawn.

    Whitening a 32 x 32 image takes 19 million multiply-adds, more than a narrow network's step.
    Normalizing costs less than reading float32 instead of bytes.
    """
    if is_whitened(images, transform):
        return RealImages(_whitened(transform, jnp.asarray(images)), transform)
    return RealImages(jnp.asarray(images), transform)


def is_whitened(images: UInt8[np.ndarray, "n h w c"], transform: Any) -> bool:
    """Returns whether `to_device` whitens images at once."""
    return isinstance(transform, ZCA) and 4 * images.size <= MOST_WHITENED


@jax.jit
def _whitened(zca, images):
    """Whitens all images in parts of equal size; the last part overlaps the one before."""
    count = len(images)
    size = min(_WHITENED_AT_ONCE, count)

    def part(i, whitened):
        start = jnp.minimum(i * size, count - size)
        chunk = zca(to_unit(jax.lax.dynamic_slice_in_dim(images, start, size)))
        return jax.lax.dynamic_update_slice_in_dim(whitened, chunk, start, 0)

    return jax.lax.fori_loop(0, -(-count // size), part, jnp.zeros(images.shape))


def fit_zca(images: UInt8[np.ndarray, "n h w c"]) -> ZCA:
    """Computes `formats.transforms.fit_zca` on a device."""
    return jax.tree.map(jnp.asarray, host.fit_zca(images))


def cached_zca(
    images: UInt8[np.ndarray, "n h w c"],
    fingerprint: str,
    cache_dir: str | os.PathLike | None = None,
) -> ZCA:
    """Computes or reads `formats.transforms.cached_zca` on a device."""
    return jax.tree.map(jnp.asarray, host.cached_zca(images, fingerprint, cache_dir))
