"""VGG11 as dataset condensation evaluates it."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from gsdd_jax.networks.base import Architecture, Precision, Shape
from gsdd_jax.networks.layers import Convolutional, InstanceNorm
from gsdd_jax.ops.conv import Method
from gsdd_jax.ops.pool import adaptive_max_pool, max_pool

# Channels of the convolutions before each max pooling.
_STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))


@dataclasses.dataclass(frozen=True)
class VGG11(Architecture):
    """Eight 3×3 convolutions with instance norm and ReLU, five 2×2 max poolings.

    The mean over the remaining pixels follows (one pixel at 32×32). From 128×128 on, an adaptive
    7×7 max pooling replaces the mean (Cazenavette et al. 2023).
    """

    name: ClassVar[str] = "vgg11"
    rate_across: ClassVar[float | None] = 1e-2

    def smallest(self, size: int) -> int:
        return 32

    def body(self, image_shape: Shape, conv: Method, precision: Precision) -> nn.Module:
        return _Body(conv, precision)


class _Body(Convolutional):
    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        large = min(x.shape[1:3]) >= 128
        for stage in _STAGES:
            for features in stage:
                x = nn.relu(InstanceNorm()(self.conv(features, bias="canceled")(x)))
            x = max_pool(x)
        return adaptive_max_pool(x, 7).reshape(len(x), -1) if large else x.mean((1, 2))
