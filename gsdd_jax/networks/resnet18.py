"""ResNet18 as dataset condensation evaluates it."""

import dataclasses
import functools
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from gsdd_jax.networks.base import Architecture, Precision, Shape
from gsdd_jax.networks.layers import Convolutional, InstanceNorm
from gsdd_jax.ops.conv import Method

# Channels and first stride of each stage of two blocks.
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


@dataclasses.dataclass(frozen=True)
class ResNet18(Architecture):
    """ResNet18 with instance norm in place of batch norm (Cazenavette et al. 2023).

    A 3×3 stem at full resolution, eight basic blocks, then the mean over the image.
    """

    name: ClassVar[str] = "resnet18"
    rate_across: ClassVar[float | None] = 1e-2

    def body(self, image_shape: Shape, conv: Method, precision: Precision) -> nn.Module:
        return _Body(conv, precision)


class _Body(Convolutional):
    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        conv = functools.partial(self.conv, bias="none")
        x = nn.relu(InstanceNorm()(conv(64)(x)))
        for features, first_stride in _STAGES:
            for stride in (first_stride, 1):
                y = nn.relu(InstanceNorm()(conv(features, stride=stride)(x)))
                y = InstanceNorm()(conv(features)(y))
                if stride != 1 or x.shape[-1] != features:
                    x = InstanceNorm()(conv(features, size=1, stride=stride, padding=0)(x))
                x = nn.relu(x + y)
        return x.mean((1, 2))
