"""A small vision transformer."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.networks.base import Architecture, Precision, Shape
from gsdd_jax.networks.layers import Linear
from gsdd_jax.ops.conv import Method
from gsdd_jax.ops.norm import widen

DIM = 512
HEADS = 8


@dataclasses.dataclass(frozen=True)
class ViT(Architecture):
    """Transformer of width 512 with 8 heads, MLPs of width 512 and no norm.

    Has the shape that Cazenavette et al. (2023) evaluate, without its dropout of 0.1. Class token
    and position embedding are initialized from a standard normal distribution, as theirs. An image
    has eight patches per side. The class token is read out.
    """

    name: ClassVar[str] = "vit"
    rate_across: ClassVar[float | None] = 5e-5
    depth: int = field(0, "number of blocks; 0: automatic (10 from 128 x 128, else 6)", 0, 1000)

    def check(self, image_shape: Shape) -> None:
        super().check(image_shape)
        height, width = image_shape[:2]
        patch = _patch(image_shape)
        if height % patch or width % patch:
            raise UsageError(f"vit cuts patches of {patch} pixels: {height, width} does not fit")

    def body(self, image_shape: Shape, conv: Method, precision: Precision) -> nn.Module:
        depth = self.depth or (10 if min(image_shape[:2]) >= 128 else 6)
        return _Body(_patch(image_shape), depth, precision)


def _patch(image_shape: Shape) -> int:
    return min(image_shape[:2]) // 8


class _Body(nn.Module):
    patch: int
    depth: int
    precision: Precision = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        b, h, w, c = x.shape
        rows, columns = h // self.patch, w // self.patch
        x = x.reshape(b, rows, self.patch, columns, self.patch, c).swapaxes(2, 3)
        x = self._linear(DIM)(x.reshape(b, rows * columns, -1))
        token = self.param("class_token", nn.initializers.normal(1.0), (1, 1, DIM), jnp.float32)
        shape = (1, rows * columns + 1, DIM)
        position = self.param("position", nn.initializers.normal(1.0), shape, jnp.float32)
        x = jnp.concatenate([jnp.broadcast_to(token, (b, 1, DIM)).astype(x.dtype), x], axis=1)
        x = x + position.astype(x.dtype)
        for _ in range(self.depth):
            x = x + self._attention(x)
            hidden = nn.gelu(self._linear(DIM)(x), approximate=False)
            x = x + self._linear(DIM)(hidden)
        return x[:, 0]

    def _linear(self, features: int, bias: bool = True) -> Linear:
        return Linear(features, bias, self.precision)

    def _attention(self, x: Array) -> Array:
        b, tokens, _ = x.shape
        qkv = self._linear(3 * DIM, bias=False)(x).reshape(b, tokens, 3, HEADS, DIM // HEADS)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=self.precision)
        weights = nn.softmax(widen(scores) * (DIM // HEADS) ** -0.5).astype(x.dtype)
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, value, precision=self.precision)
        return self._linear(DIM)(y.reshape(b, tokens, DIM))
