"""Computes convolutions as one matrix product per kernel position, fast on a CPU.

Covers kernels, strides and images that no other form takes. XLA's own convolution falls back to
plain loops there: under vmap or for images of a few pixels up to a hundred times slower.
"""

from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c o"], stride: int, padding: int
) -> Float[Array, "b oh ow o"]:
    out_h, out_w = (
        (side + 2 * padding - length) // stride + 1
        for side, length in zip(x.shape[1:3], kernel.shape[:2], strict=True)
    )
    total = jnp.zeros((len(x), out_h, out_w, kernel.shape[3]), x.dtype)
    for (i, j), seen in _seen(x, kernel.shape[:2], (out_h, out_w), stride, padding):
        total += jnp.matmul(seen, kernel[i, j]).reshape(total.shape)
    return total


def image_gradient(
    g: Float[Array, "b oh ow o"],
    kernel: Float[Array, "kh kw c o"],
    image_size: tuple[int, int],
    stride: int,
    padding: int,
) -> Float[Array, "b h w c"]:
    pixels = g.reshape(-1, g.shape[-1])
    total = jnp.zeros((len(g), *image_size, kernel.shape[2]), g.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            part = jnp.matmul(pixels, kernel[i, j].T).reshape(*g.shape[:3], -1)
            sides = [
                (first - padding, side - 1 - (first - padding + (count - 1) * stride), stride - 1)
                for first, side, count in zip((i, j), image_size, g.shape[1:3], strict=True)
            ]
            total += lax.pad(part, jnp.zeros((), g.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    return total


def kernel_gradient(
    x: Float[Array, "b h w c"],
    g: Float[Array, "b oh ow o"],
    kernel_size: tuple[int, int],
    stride: int,
    padding: int,
) -> Float[Array, "kh kw c o"]:
    pixels = g.reshape(-1, g.shape[-1])
    seen = _seen(x, kernel_size, g.shape[1:3], stride, padding)
    parts = [jnp.matmul(images.T, pixels) for _, images in seen]
    return jnp.stack(parts).reshape(*kernel_size, x.shape[-1], g.shape[-1])


def _seen(
    x: Array, kernel_size: tuple[int, int], out_size: tuple[int, int], stride: int, padding: int
) -> Iterator[tuple[tuple[int, int], Array]]:
    """Yields each kernel position and the pixels [b·oh·ow, c] under it."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    reach_h, reach_w = ((count - 1) * stride + 1 for count in out_size)
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            under = x[:, i : i + reach_h : stride, j : j + reach_w : stride]
            yield (i, j), under.reshape(-1, x.shape[-1])
