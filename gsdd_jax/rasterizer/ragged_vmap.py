"""Several ragged batches as one, so that `vmap` makes one call of a call.

A batch of B images becomes B + 1: the last one, which nobody sees, holds the Gaussians after the
batch's own images, up to the next batch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Int32, Shaped

from gsdd_jax.rasterizer.limits import MAX_CALL_GAUSSIANS


def ragged_vmap(call: Callable[..., Any], together: Callable[..., Any]) -> Callable[..., Any]:
    """`call(offsets, *arrays)` of one ragged batch; under `vmap`, `together` of them all.

    Args:
      call: also what several batches are called with one by one, where offsets of all would not
        fit into 32 bits.
      together: (call, offsets, *arrays), all with a leading axis of batches, to results with one.
    """
    mapped = custom_vmap(call)

    @mapped.def_vmap
    def _(size, batched, *operands):
        operands = [
            operand if known else jnp.broadcast_to(operand, (size, *operand.shape))
            for operand, known in zip(operands, batched, strict=True)
        ]
        if size * operands[1].shape[1] < MAX_CALL_GAUSSIANS:
            results = together(mapped, *operands)
        else:
            results = jax.lax.map(lambda each: mapped(*each), operands)
        return results, jax.tree.map(lambda _: True, results)

    return mapped


def merge_offsets(
    offsets: Int32[Array, "s images_plus_1"], count: int
) -> Int32[Array, "all_images_plus_1"]:
    """Where images begin among the Gaussians of all batches, `count` each.

    What is out of range in a batch stays so: -1.
    """
    size = len(offsets)
    right = (offsets >= 0) & (offsets <= count)
    starts = jnp.where(right, offsets + count * jnp.arange(size, dtype=jnp.int32)[:, None], -1)
    return jnp.append(starts.ravel(), size * count)


def merge_gaussians(array: Shaped[Array, "s n *rest"]) -> Shaped[Array, "all_n *rest"]:
    """The Gaussians of all batches, one batch after the other."""
    return array.reshape(-1, *array.shape[2:])


def merge_images(images: Shaped[Array, "s b *rest"]) -> Shaped[Array, "all_b *rest"]:
    """The images of all batches, with zeros for those that nobody sees."""
    padded = jnp.pad(images, [(0, 0), (0, 1)] + [(0, 0)] * (images.ndim - 2))
    return merge_gaussians(padded)


def split_images(images: Shaped[Array, "all_b *rest"], size: int) -> Shaped[Array, "s b *rest"]:
    """The images of each of `size` batches that are seen."""
    return images.reshape(size, -1, *images.shape[1:])[:, :-1]


def in_an_image(offsets: Int32[Array, "s images_plus_1"], count: int) -> Bool[Array, "s n"]:
    """Which Gaussians of each batch are in one of its images."""
    place = jnp.arange(count)
    return (place >= offsets[:, :1]) & (place < offsets[:, -1:])
