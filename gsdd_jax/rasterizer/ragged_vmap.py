"""Merges ragged batches, so that `vmap` of a custom call is one call.

A batch of B images becomes B + 1 images. The last image takes the Gaussians between this
batch's images and the next batch's; it is discarded.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int32, Shaped

from gsdd_jax.rasterizer import sharding
from gsdd_jax.rasterizer.limits import MAX_CALL_GAUSSIANS


def ragged_vmap(call: Callable[..., Any], together: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `call(offsets, *arrays)` with a batching rule: `together` renders all batches.

    It takes the call, too, and arrays with a leading axis of batches. If the merged offsets exceed
    32 bits, batches are rendered one by one.
    """
    mapped = custom_vmap(call)

    @mapped.def_vmap
    def _(size, batched, *operands):
        operands = sharding.batches(size, batched, operands)
        if size * operands[1].shape[1] < MAX_CALL_GAUSSIANS:
            results = together(mapped, *operands)
        else:
            results = jax.lax.map(lambda each: mapped(*each), operands)
        return results, jax.tree.map(lambda _: True, results)

    return mapped


def merge_offsets(
    offsets: Int32[Array, "s images_plus_1"], count: int
) -> Int32[Array, "all_images_plus_1"]:
    """Returns the offsets of the images among the Gaussians of all batches.

    An offset out of range in its batch becomes -1, which is out of range in the merged batch.
    """
    size = len(offsets)
    right = (offsets >= 0) & (offsets <= count)
    starts = jnp.where(right, offsets + count * jnp.arange(size, dtype=jnp.int32)[:, None], -1)
    return jnp.append(starts.ravel(), size * count)


def merge_gaussians(array: Shaped[Array, "s n *rest"]) -> Shaped[Array, "all_n *rest"]:
    return array.reshape(-1, *array.shape[2:])


def merge_images(images: Shaped[Array, "s b *rest"]) -> Shaped[Array, "all_b *rest"]:
    """Concatenates the images of all batches, with a zero image after each batch."""
    padded = jnp.pad(images, [(0, 0), (0, 1)] + [(0, 0)] * (images.ndim - 2))
    return merge_gaussians(padded)


def split_images(images: Shaped[Array, "all_b *rest"], size: int) -> Shaped[Array, "s b *rest"]:
    """Splits merged images into `size` batches and drops the extra image of each."""
    return images.reshape(size, -1, *images.shape[1:])[:, :-1]


def in_an_image(offsets: Int32[Array, "s images_plus_1"], count: int) -> Bool[Array, "s n"]:
    """Returns a mask of the Gaussians that belong to an image of their batch."""
    place = jnp.arange(count)
    return (place >= offsets[:, :1]) & (place < offsets[:, -1:])
