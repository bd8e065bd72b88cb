"""Custom calls of the networks."""

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from gsdd_jax.core.native import like


def norm_pool(
    epsilon: float,
    x: Float[Array, "*e b h w c"],
    scale: Float32[Array, "*e c"],
    shift: Float32[Array, "*e c"],
) -> tuple[
    Float[Array, "*e b h2 w2 c"],
    Float32[Array, "*e b c"],
    Float32[Array, "*e b c"],
]:
    """Computes instance norm, ReLU and 2×2 average pooling.

    Axes of `vmap` join the leading ones, so that it stays one call. h and w must be even.

    Returns:
      The pooled images; per image and channel the mean minus the middle pixel; and
      1 / √(variance + ε).
    """
    *batch, h, w, c = x.shape
    statistics = like(x, (*batch, c))
    outputs = (like(x, (*batch, h // 2, w // 2, c), x.dtype), statistics, statistics)
    return _call("gsdd_norm_pool", outputs)(x, scale, shift, epsilon=np.float32(epsilon))


def norm_pool_gradient(
    x: Float[Array, "*e b h w c"],
    scale: Float32[Array, "*e c"],
    shift: Float32[Array, "*e c"],
    mean: Float32[Array, "*e b c"],
    rate: Float32[Array, "*e b c"],
    g: Float[Array, "*e b h2 w2 c"],
) -> tuple[
    Float[Array, "*e b h w c"],
    Float32[Array, "*e b c"],
    Float32[Array, "*e b c"],
]:
    """Returns cotangents of x and, per image, of scale and shift."""
    statistics = like(x, mean.shape)
    outputs = (like(x, x.shape, x.dtype), statistics, statistics)
    return _call("gsdd_norm_pool_gradient", outputs)(x, scale, shift, mean, rate, g)


def norm_pool_second(
    x: Float[Array, "*e b h w c"],
    scale: Float32[Array, "*e c"],
    shift: Float32[Array, "*e c"],
    mean: Float32[Array, "*e b c"],
    rate: Float32[Array, "*e b c"],
    g: Float[Array, "*e b h2 w2 c"],
    a: Float[Array, "*e b h w c"],
    a_scale: Float32[Array, "*e b c"],
    a_shift: Float32[Array, "*e b c"],
) -> tuple[
    Float[Array, "*e b h w c"],
    Float32[Array, "*e b c"],
    Float[Array, "*e b h2 w2 c"],
]:
    """Differentiates `norm_pool_gradient`.

    Args:
      a, a_scale, a_shift: cotangents of its three results.

    Returns:
      Cotangents of x, of scale per image, and of g.
    """
    outputs = (like(x, x.shape, x.dtype), like(x, mean.shape), like(x, g.shape, g.dtype))
    call = _call("gsdd_norm_pool_second", outputs)
    return call(x, scale, shift, mean, rate, g, a, a_scale, a_shift)


def conv(
    x: Float32[Array, "b h w c"], kernel: Float32[Array, "3 3 c o"]
) -> Float32[Array, "b h w o"]:
    """3×3 convolution with stride 1 and padding 1, on a CPU."""
    return _call("gsdd_conv3x3", like(x, (*x.shape[:3], kernel.shape[3])))(x, kernel)


def conv_kernel_gradient(
    x: Float32[Array, "b h w c"], g: Float32[Array, "b h w o"]
) -> Float32[Array, "3 3 c o"]:
    """Returns the cotangent of the kernel of `conv` for output cotangent `g`."""
    shape = (3, 3, x.shape[3], g.shape[3])
    return _call("gsdd_conv3x3_kernel_gradient", like(x, shape))(x, g)


def _call(target, outputs):
    return jax.ffi.ffi_call(target, outputs, vmap_method="broadcast_all")
