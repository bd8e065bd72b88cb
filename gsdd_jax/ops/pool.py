"""Pooling of images, channels last."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def _blocks(x: Array) -> Array:
    """Reshapes [b, h, w, c] to [b, h/2, 2, w/2, 2, c]; drops an odd last row or column."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    return _blocks(x).mean((2, 4))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Takes the maximum of every 2×2 block; equal maxima share the gradient."""
    return _blocks(x).max((2, 4))


def adaptive_max_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b {size} {size} c"]:
    """Takes maxima over `size` × `size` windows that cover the image evenly.

    Window i spans ⌊i h / size⌋ to ⌈(i + 1) h / size⌉; windows overlap if `size` does not divide h.
    """

    def pooled(x, axis):
        length = x.shape[axis]
        windows = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        maxima = [lax.slice_in_dim(x, *window, axis=axis).max(axis) for window in windows]
        return jnp.stack(maxima, axis)

    return pooled(pooled(x, 1), 2)
