"""The networks' custom calls, and where they stand in for the same in `jax.numpy`.

On a platform that they were not built for, the caller's own computation runs; which, is decided
when the program is compiled for its device.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32

from gsdd_jax import native


def _like(array: Array, shape: tuple[int, ...], dtype: jnp.dtype = np.float32):
    """The result's type: under shard_map it varies over the same mesh axes as `array`."""
    return jax.typeof(array).update(shape=shape, dtype=np.dtype(dtype))


def vary_alike(*arrays: Array) -> tuple[Array, ...]:
    """The arrays, under shard_map varying over the same mesh axes, as a custom call and custom
    derivatives want them."""
    axes_of = lambda array: jax.typeof(array).manual_axis_type.varying
    union = frozenset().union(*map(axes_of, arrays))

    def vary(array):
        missing = union - axes_of(array)
        return lax.pcast(array, tuple(sorted(missing)), to="varying") if missing else array

    return tuple(map(vary, arrays))


def where_built(native_call: Callable, otherwise: Callable, *operands: Array):
    """`native_call` on the platforms that the calls were built for, `otherwise` on others."""
    built = dict.fromkeys(native.PLATFORMS, native_call)
    return lax.platform_dependent(*operands, **built, default=otherwise)


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
    """Pooled images, and of each image and channel the mean less the middle pixel's value, and
    1 / √(variance + ε).

    h and w are even. Axes that are vmapped over join the leading ones, so it stays one call.
    """
    *batch, h, w, c = x.shape
    statistics = _like(x, (*batch, c))
    outputs = (_like(x, (*batch, h // 2, w // 2, c), x.dtype), statistics, statistics)
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
    """Cotangents of x, and each image's part of those of scale and shift."""
    statistics = _like(x, mean.shape)
    outputs = (_like(x, x.shape, x.dtype), statistics, statistics)
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
    """The gradient of `norm_pool_gradient`, for cotangents a, a_scale and a_shift of its results:
    of x, each image's part of scale's, and of g."""
    outputs = (_like(x, x.shape, x.dtype), _like(x, mean.shape), _like(x, g.shape, g.dtype))
    call = _call("gsdd_norm_pool_second", outputs)
    return call(x, scale, shift, mean, rate, g, a, a_scale, a_shift)


def conv(
    x: Float32[Array, "b h w c"], kernel: Float32[Array, "3 3 c o"]
) -> Float32[Array, "b h w o"]:
    """3×3 convolution with stride 1 and padding 1, on a CPU."""
    return _call("gsdd_conv3x3", _like(x, (*x.shape[:3], kernel.shape[3])))(x, kernel)


def conv_kernel_gradient(
    x: Float32[Array, "b h w c"], g: Float32[Array, "b h w o"]
) -> Float32[Array, "3 3 c o"]:
    """The cotangent of `conv`'s kernel for output cotangent `g`."""
    shape = (3, 3, x.shape[3], g.shape[3])
    return _call("gsdd_conv3x3_kernel_gradient", _like(x, shape))(x, g)


def _call(target, outputs):
    return jax.ffi.ffi_call(target, outputs, vmap_method="broadcast_all")
