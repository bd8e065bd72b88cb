"""AlexNet as dataset condensation evaluates it."""

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float

from gsdd_jax.networks.conv import Method
from gsdd_jax.networks.layers import Conv, max_pool

# Channels, kernel size, and whether a 2×2 max pooling follows.
_LAYERS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))


class AlexNet(nn.Module):
    """Five convolutions with ReLU at stride 1, three poolings, no normalization
    (Cazenavette et al. 2023)."""

    method: Method = "auto"
    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        for features, size, pool in _LAYERS:
            x = Conv(
                features,
                size,
                padding=size // 2,
                method=self.method,
                precision=self.precision,
            )(x)
            x = nn.relu(x)
            if pool:
                x = max_pool(x)
        return x.reshape(x.shape[0], -1)
