"""Computes stride-1 convolutions of few channels as one matrix product, fast on a CPU.

Patches are laid out as [kernel positions · channels, pixels]. With three channels last, XLA
would fill neither the vector units nor all cores.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def _patches(x: Array, kernel_size: tuple[int, int], padding: int) -> Array:
    b, h, w, c = x.shape
    kernel_h, kernel_w = kernel_size
    out_h, out_w = h + 2 * padding - kernel_h + 1, w + 2 * padding - kernel_w + 1
    sides = (padding, padding)
    planes = jnp.pad(jnp.moveaxis(x, -1, 0), ((0, 0), (0, 0), sides, sides))
    shifted = [
        planes[:, :, i : i + out_h, j : j + out_w] for i in range(kernel_h) for j in range(kernel_w)
    ]
    return jnp.stack(shifted).reshape(kernel_h * kernel_w * c, b, out_h, out_w)


def forward(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw c o"], padding: int
) -> Float[Array, "b oh ow o"]:
    return jnp.einsum(
        "kbhw,ko->bhwo",
        _patches(x, kernel.shape[:2], padding),
        kernel.reshape(-1, kernel.shape[-1]),
    )


def image_gradient(
    g: Float[Array, "b oh ow o"], kernel: Float[Array, "kh kw c o"], padding: int
) -> Float[Array, "b h w c"]:
    b, out_h, out_w, _ = g.shape
    kernel_h, kernel_w, c, _ = kernel.shape
    h, w = out_h - 2 * padding + kernel_h - 1, out_w - 2 * padding + kernel_w - 1
    # Cotangents of the patches, at the output's pixels, then shifted to their source pixels.
    patches = jnp.matmul(kernel.reshape(-1, g.shape[-1]), g.reshape(-1, g.shape[-1]).T)
    patches = patches.reshape(kernel_h, kernel_w, c, b, out_h, out_w)
    sides = ((kernel_h - 1 - padding,) * 2 + (0,), (kernel_w - 1 - padding,) * 2 + (0,))
    patches = lax.pad(patches, jnp.zeros((), g.dtype), ((0, 0, 0),) * 4 + sides)
    shifted = (
        patches[i, j, :, :, kernel_h - 1 - i :, kernel_w - 1 - j :][:, :, :h, :w]
        for i in range(kernel_h)
        for j in range(kernel_w)
    )
    return jnp.moveaxis(sum(shifted, start=jnp.zeros((c, b, h, w), g.dtype)), 0, -1)


def kernel_gradient(
    x: Float[Array, "b h w c"],
    g: Float[Array, "b oh ow o"],
    kernel_size: tuple[int, int],
    padding: int,
) -> Float[Array, "kh kw c o"]:
    patches = _patches(x, kernel_size, padding)
    return jnp.einsum("kbhw,bhwo->ko", patches, g).reshape(*kernel_size, x.shape[-1], g.shape[-1])
