"""Flax layers of the networks: channels last, no state besides the parameters."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gsdd_jax.ops.conv import Method, conv
from gsdd_jax.ops.norm import instance_norm


def uniform_fan_in(fan_in: int) -> Callable[..., Array]:
    """Initializes weights and biases uniformly in ±1/√fan_in, as in the published runs."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """Convolution with `features` output channels.

    With `bias="canceled"` the bias is a parameter but is not added. The instance norm that follows
    would subtract it: it has no effect and its gradient is exactly zero.
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
        return y if self.bias == "canceled" else y + bias.astype(x.dtype)


class Convolutional(nn.Module):
    """Base of bodies that convolve."""

    method: Method
    precision: lax.Precision | None

    def conv(self, features: int, **options: Any) -> Conv:
        return Conv(features, method=self.method, precision=self.precision, **options)


class InstanceNorm(nn.Module):
    """`instance_norm`, or a function that includes it, with initial scale 1 and shift 0."""

    function: Callable[..., Array] = instance_norm

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow c"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        shift = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        return self.function(x, scale, shift)


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
