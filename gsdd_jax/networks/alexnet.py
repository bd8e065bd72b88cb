"""AlexNet as dataset condensation evaluates it."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float

from gsdd_jax.networks.base import Architecture
from gsdd_jax.networks.layers import Conv
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

    def body(
        self, image_shape: tuple[int, int, int], conv: Method, precision: lax.Precision | None
    ) -> nn.Module:
        return _Body(conv, precision)


class _Body(nn.Module):
    method: Method = "auto"
    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        for features, size, pool in _LAYERS:
            x = Conv(
                features, size, padding=size // 2, method=self.method, precision=self.precision
            )(x)
            x = nn.relu(x)
            if pool:
                x = max_pool(x)
        return x.reshape(x.shape[0], -1)
