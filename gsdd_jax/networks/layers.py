"""The layers that the networks are made of: channels last, no state besides the parameters."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gsdd_jax.networks.conv import Method, conv

EPSILON = 1e-5


def uniform_fan_in(fan_in: int) -> Callable[..., Array]:
    """Initializer for weights and biases: uniform in ±1/√fan_in, as in the published runs."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def widen(x: Array) -> Array:
    """`x` in float32, or in its own type where that is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def instance_norm(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], shift: Float[Array, " c"]
) -> Float[Array, "b h w c"]:
    """(x - mean) / √(variance + 1e-5) · scale + shift, each image and channel by itself.

    The variance is the biased one, in float32 at least. A mean far from zero does not add to its
    relative error, which is a few roundings, and as many as there are pixels in the worst case:
    where the middle pixel alone differs from the others.
    """
    wide = widen(x)
    h, w = x.shape[1:3]
    # Both sums about one pixel's value, so that they take one pass over the array. It cancels from
    # the result, and so from every derivative.
    middle = (slice(None), slice(h // 2, h // 2 + 1), slice(w // 2, w // 2 + 1))
    moved = wide - lax.stop_gradient(wide[middle])
    mean = moved.mean((1, 2), keepdims=True)
    variance = jnp.square(moved).mean((1, 2), keepdims=True) - jnp.square(mean)
    # One factor a channel, so that the large array is read once.
    return ((moved - mean) * (lax.rsqrt(variance + EPSILON) * scale) + shift).astype(x.dtype)


def _blocks(x: Array) -> Array:
    """[b, h, w, c] as [b, h/2, 2, w/2, 2, c]; an odd last row or column is left out."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Mean of every 2×2 block."""
    return _blocks(x).mean((2, 4))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Maximum of every 2×2 block; equal maxima share the gradient."""
    return _blocks(x).max((2, 4))


def adaptive_max_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b {size} {size} c"]:
    """Maxima over `size` × `size` windows that cover the image evenly and overlap where they must:
    window i goes from ⌊i h / size⌋ to ⌈(i + 1) h / size⌉."""

    def pooled(x, axis):
        length = x.shape[axis]
        windows = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        maxima = [lax.slice_in_dim(x, *window, axis=axis).max(axis) for window in windows]
        return jnp.stack(maxima, axis)

    return pooled(pooled(x, 1), 2)


class Conv(nn.Module):
    """Convolution with `features` output channels.

    With `bias="cancelled"` the bias is a parameter but is not added: the instance norm that follows
    subtracts it again, so it has no effect and its gradient is exactly zero.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    bias: str = "added"
    method: Method = "auto"
    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow o"]:
        channels = x.shape[-1]
        init = uniform_fan_in(self.size**2 * channels)
        kernel = self.param("kernel", init, (self.size, self.size, channels, self.features))
        y = conv(
            x,
            kernel.astype(x.dtype),
            stride=self.stride,
            padding=self.padding,
            method=self.method,
            precision=self.precision,
        )
        if self.bias == "none":
            return y
        bias = self.param("bias", init, (self.features,))
        return y if self.bias == "cancelled" else y + bias.astype(x.dtype)


class InstanceNorm(nn.Module):
    """`instance_norm` with scale 1 and shift 0 at the start."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        shift = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return instance_norm(x, scale, shift)


class Linear(nn.Module):
    """Affine map of the last axis."""

    features: int
    bias: bool = True
    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b f"]) -> Float[Array, "*b o"]:
        init = uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = jnp.matmul(x, kernel.astype(x.dtype), precision=self.precision)
        if not self.bias:
            return y
        return y + self.param("bias", init, (self.features,)).astype(x.dtype)
