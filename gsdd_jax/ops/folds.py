"""Convolutions of stride 2 as convolutions of stride 1: a 2 x 2 block of pixels becomes one pixel.

A pixel of the block then has channels of its own, in the image and in the kernel. Half a kernel's
side is rounded up, and the missing weights are zeros. No padding is left.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def side(kernel_side: int) -> int:
    """Returns the side of the folded kernel."""
    return -(-kernel_side // 2)


def image(x: Float[Array, "b h w c"], kernel_side: int, padding: int) -> Float[Array, "b f g d"]:
    """Folds padded images; d = 4 c. Rows and columns that no output sees are left out."""
    count, *lengths, channels = x.shape
    out = ((length + 2 * padding - kernel_side) // 2 + 1 for length in lengths)
    height, width = (length + side(kernel_side) - 1 for length in out)
    ends = (2 * folded - padding - length
            for folded, length in zip((height, width), lengths, strict=True))  # fmt: skip
    none = (0, 0, 0)
    borders = (none, *((padding, end, 0) for end in ends), none)
    x = lax.pad(x, jnp.zeros((), x.dtype), borders)
    x = x.reshape(count, height, 2, width, 2, channels).swapaxes(2, 3)
    return x.reshape(count, height, width, 4 * channels)


def kernel(weights: Float[Array, "k k c o"]) -> Float[Array, "s s d o"]:
    """Folds a kernel as `image` folds images."""
    half, missing = side(len(weights)), len(weights) % 2
    weights = jnp.pad(weights, ((0, missing), (0, missing), (0, 0), (0, 0)))
    weights = weights.reshape(half, 2, half, 2, *weights.shape[2:]).swapaxes(1, 2)
    return weights.reshape(half, half, -1, weights.shape[-1])
