"""ConvNet, the field's student, expert and default evaluation network."""

import flax.linen as nn
from jax import lax
from jaxtyping import Array, Float

from gsdd_jax.networks.conv import Method
from gsdd_jax.networks.layers import Conv
from gsdd_jax.networks.norm_pool import NormPool


class ConvNet(nn.Module):
    """`depth` blocks of 3×3 convolution, instance norm, ReLU, 2×2 average pooling, flattened
    (paper, section A.1.2)."""

    width: int
    depth: int
    method: Method = "auto"
    precision: lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        for i in range(self.depth):
            x = Conv(self.width, bias="cancelled", method=self.method, precision=self.precision)(x)
            x = NormPool(fused=self.method == "auto", name=f"InstanceNorm_{i}")(x)
        return x.reshape(x.shape[0], -1)
