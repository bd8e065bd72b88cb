"""Corrupted test images: noise, blur, contrast and JPEG at five strengths.

Kinds and strengths follow the common corruption benchmarks (Hendrycks and Dietterich, 2019): one
column for images up to 64 pixels per side, as for CIFAR-10, one for larger ones, as for ImageNet.
Everything is computed from its definition: one key gives the same bytes on machines of one kind.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from gsdd_jax.data.transforms import to_unit

NUM_STRENGTHS = 5
SMALL = 64  # largest side in pixels for the first column
STRENGTHS = {
    # Standard deviation of the noise, in [0, 1].
    "noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    # Standard deviation of the Gaussian, in pixels.
    "blur": ((0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)),
    # Remaining fraction of the distance from an image's mean color.
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    # Quality, from 1 to 100.
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}
# ITU-T T.81, tables K.1 (luminance) and K.2 (chrominance), row by row.
LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip
# JFIF: R, G, B to Y, Cb, Cr; chrominance is around 128.
TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
)
TO_RGB = np.array([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]])


@functools.partial(jax.jit, static_argnums=(2, 3))
def corrupt(
    key: Key[Array, ""], images: UInt8[Array, "n h w c"], kind: str, strength: int
) -> UInt8[Array, "n h w c"]:
    """Returns images corrupted by a kind of `STRENGTHS`; only noise draws from the key.

    Raises ValueError for an unknown kind or strength, and for JPEG of other than one or three
    channels.
    """
    if kind not in STRENGTHS:
        raise ValueError(f"corrupt: expected one of {', '.join(STRENGTHS)}, got {kind!r}")
    if not 1 <= strength <= NUM_STRENGTHS:
        raise ValueError(f"corrupt: expected a strength of 1 to {NUM_STRENGTHS}, got {strength}")
    _, height, width, _ = images.shape
    amount = STRENGTHS[kind][max(height, width) > SMALL][strength - 1]
    if kind == "jpeg":
        return jpeg(images, amount)
    unit = to_unit(images)
    if kind == "noise":
        unit += amount * jax.random.normal(key, unit.shape)
    elif kind == "blur":
        unit = blur(unit, amount)
    else:
        mean = unit.mean((1, 2), keepdims=True)
        unit = (unit - mean) * amount + mean
    return _to_bytes(255 * unit)


def blur(images: Float[Array, "n h w c"], deviation: float) -> Float[Array, "n h w c"]:
    """Applies a Gaussian of `deviation` pixels, cut at four of them; edges are repeated."""
    radius = max(1, math.ceil(4 * deviation))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        size = images.shape[axis]
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(images, padding, mode="edge")
        images = sum(
            float(w) * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i, w in enumerate(weights)
        )
    return images


def jpeg(images: UInt8[Array, "n h w c"], quality: int) -> UInt8[Array, "n h w c"]:
    """Returns images after a baseline 4:2:0 JPEG; its entropy coding is lossless and left out.

    Tables and their scaling with quality are the Independent JPEG Group's. Raises ValueError for
    other than one or three channels.
    """
    num, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"jpeg: expected images of 1 or 3 channels, got {channels}")
    unit = 8 if channels == 1 else 16  # side of a coding unit in pixels
    padding = [(0, 0), (0, -height % unit), (0, -width % unit), (0, 0)]
    values = jnp.pad(images, padding, mode="edge").astype(jnp.float32)
    if channels == 1:
        return _to_bytes(_quantized(values - 128, LUMINANCE, quality) + 128)[:, :height, :width]
    values = jnp.round(_mixed(values, TO_YCC) + np.array([0, 128, 128], np.float32))
    luminance = _quantized(values[..., :1] - 128, LUMINANCE, quality) + 128
    _, padded_height, padded_width, _ = values.shape
    halves = (num, padded_height // 2, 2, padded_width // 2, 2, 2)
    # Average four samples; halves round down and up alternately.
    bias = 0.25 * (1 + np.arange(padded_width // 2, dtype=np.float32) % 2)[:, None]
    chrominance = jnp.floor(values[..., 1:].reshape(halves).mean((2, 4)) + bias)
    chrominance = jnp.round(_quantized(chrominance - 128, CHROMINANCE, quality))
    # Three quarters of the nearer sample and one of the farther one, along each axis.
    chrominance = jax.image.resize(
        jnp.clip(chrominance, -128, 127), (num, padded_height, padded_width, 2), "bilinear"
    )
    chrominance = jnp.round(chrominance)
    luminance = jnp.clip(jnp.round(luminance), 0, 255)
    restored = _mixed(jnp.concatenate([luminance, chrominance], -1), TO_RGB)
    return _to_bytes(restored)[:, :height, :width]


def _quantized(values, table, quality):
    """Rounds the cosine transform of 8 x 8 blocks to multiples of the scaled table."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = np.clip((np.array(table).reshape(8, 1, 8, 1) * scale + 50) // 100, 1, 255)
    frequency, place = np.arange(8)[:, None], np.arange(8)[None]
    cosines = np.cos(np.pi * (2 * place + 1) * frequency / 16) * np.where(frequency, 0.5, 8**-0.5)
    blocks = values.reshape(len(values), -1, 8, values.shape[2] // 8, 8, values.shape[3])
    rows = jnp.asarray(cosines, jnp.float32)
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    spectrum = product("uy,vx,naybxc->naubvc", rows, rows, blocks)
    steps = jnp.asarray(steps, jnp.float32)  # [u, 1, v, 1] against [n, a, u, b, v, c]
    kept = jnp.round(spectrum / steps) * steps
    return product("uy,vx,naubvc->naybxc", rows, rows, kept).reshape(values.shape)


def _mixed(values, matrix):
    mixing = jnp.asarray(matrix.T, jnp.float32)
    return jnp.matmul(values, mixing, precision=jax.lax.Precision.HIGHEST)


def _to_bytes(values):
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
