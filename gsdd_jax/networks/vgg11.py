"""VGG11 as dataset condensation evaluates it."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float

from gsdd_jax.networks.base import Architecture
from gsdd_jax.networks.layers import Conv, InstanceNorm
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

    def body(
        self, image_shape: tuple[int, int, int], conv: Method, precision: lax.Precision | None
    ) -> nn.Module:
        return _Body(conv, precision)


class _Body(nn.Module):
    method: Method = "auto"
    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        large = min(x.shape[1:3]) >= 128
        for stage in _STAGES:
            for features in stage:
                x = Conv(features, bias="canceled", method=self.method, precision=self.precision)(x)
                x = nn.relu(InstanceNorm()(x))
            x = max_pool(x)
        return adaptive_max_pool(x, 7).reshape(len(x), -1) if large else x.mean((1, 2))
