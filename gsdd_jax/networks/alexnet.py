"""AlexNet as dataset condensation evaluates it."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from gsdd_jax.networks.base import Architecture, Precision, Shape
from gsdd_jax.networks.layers import Convolutional
from gsdd_jax.ops.conv import Method
from gsdd_jax.ops.pool import max_pool

# Channels, kernel size, and whether a 2×2 max pooling follows.
_LAYERS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))


@dataclasses.dataclass(frozen=True)
class AlexNet(Architecture):
    """Five convolutions with ReLU at stride 1 and three poolings (Cazenavette et al. 2023).

    Has no normalization.
    """

    name: ClassVar[str] = "alexnet"
    rate_across: ClassVar[float | None] = 1e-3

    def body(self, image_shape: Shape, conv: Method, precision: Precision) -> nn.Module:
        return _Body(conv, precision)


class _Body(Convolutional):
    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        for features, size, pool in _LAYERS:
            x = nn.relu(self.conv(features, size=size, padding=size // 2)(x))
            if pool:
                x = max_pool(x)
        return x.reshape(x.shape[0], -1)
