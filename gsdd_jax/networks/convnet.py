"""ConvNet, the field's student, expert and default evaluation network."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from gsdd_jax.core.fields import Shrink, field
from gsdd_jax.formats.labeler import automatic_depth
from gsdd_jax.networks.base import Architecture, Precision, Shape
from gsdd_jax.networks.layers import Convolutional, InstanceNorm
from gsdd_jax.ops.conv import Method
from gsdd_jax.ops.norm_pool import norm_pool, plain


@dataclasses.dataclass(frozen=True)
class ConvNet(Architecture):
    """ConvNet of dataset distillation (paper, section A.1.2).

    Each block is a 3×3 convolution, instance norm, ReLU and 2×2 average pooling. By default there
    are log2(size) - 2 blocks.
    """

    name: ClassVar[str] = "convnet"
    # Wider networks exhaust memory; the deepest one takes the largest image that is rendered.
    width: int = field(128, "channels per layer; published: 128", 1, 4096, shrink=Shrink(0.5, 4))
    depth: int = field(0, "number of blocks; 0: automatic (3 at 32 x 32, 5 at 128 x 128)", 0, 16)

    def smallest(self, size: int) -> int:
        return 2 ** self._depth(size)

    def body(self, image_shape: Shape, conv: Method, precision: Precision) -> nn.Module:
        return _Body(conv, precision, self.width, self._depth(min(image_shape[:2])))

    def _depth(self, size: int) -> int:
        return self.depth or automatic_depth(size)


class _Body(Convolutional):
    width: int
    depth: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        for _ in range(self.depth):
            x = self.conv(self.width, bias="canceled")(x)
            # Unfused it has forward-mode derivatives too.
            x = InstanceNorm(norm_pool if self.method == "auto" else plain)(x)
        return x.reshape(x.shape[0], -1)
