"""Images as bases that hallucinators show, each base by each of them (HaBa)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import einsum, namespace, resize
from gsdd_jax.formats.base import PLAIN, dtype_field
from gsdd_jax.formats.pairs import Paired
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_CHANNELS

BASES = "bases"
ENCODER, SCALE, SHIFT, DECODER = "encoder", "scale", "shift", "decoder"
ENCODER_BIAS, DECODER_BIAS = "encoder_bias", "decoder_bias"
KERNEL = 3  # pixels per side of a convolution's kernel, as published


@dataclasses.dataclass(frozen=True)
class HaBa(Paired):
    """Hallucinators of two convolutions with a scale and a shift of each feature between them.

    The first convolution has no padding, so that features are two pixels smaller. The second one is
    transposed and restores the size. A class has bases, each shown by every hallucinator.
    """

    name: ClassVar[str] = "haba"
    held: ClassVar[str] = BASES
    partner: ClassVar[str] = "hallucinators"
    hallucinators: int = field(..., "hallucinators that all bases share; published: 5", most=1024)
    base_channels: int = field(
        ..., "channels of a base: those of images, or 1; published: 3, 1", most=MAX_CHANNELS
    )
    dtype: str = dtype_field(PLAIN)

    def __post_init__(self):
        if min(self.height, self.width) < KERNEL:
            raise UsageError(
                f"parameterization haba: expected images of at least {KERNEL} x {KERNEL} pixels, "
                f"got {self.height} x {self.width}"
            )
        if self.base_channels not in (1, self.channels):
            raise UsageError(
                f"parameterization haba: base_channels: expected 1 or {self.channels}, the "
                f"channels of images, got {self.base_channels}"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of one base."""
        return {BASES: (self.height, self.width, self.base_channels)}

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        side, features = (KERNEL, KERNEL), self.channels
        inner = self.height - KERNEL + 1, self.width - KERNEL + 1, features
        of_one = {
            ENCODER: (*side, self.base_channels, features),
            ENCODER_BIAS: (features,),
            SCALE: inner,
            SHIFT: inner,
            DECODER: (*side, features, self.channels),
            DECODER_BIAS: (self.channels,),
        }
        return {name: (self.hallucinators, *shape) for name, shape in of_one.items()}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        of = self.of_images(params)
        features = _convolved(of[BASES], of[ENCODER]) + of[ENCODER_BIAS][:, None, None]
        features = of[SCALE] * features + of[SHIFT]
        around, xp = KERNEL - 1, namespace(features)
        features = xp.pad(features, ((0, 0), (around, around), (around, around), (0, 0)))
        images = _convolved(features, of[DECODER]) + of[DECODER_BIAS][:, None, None]
        return resize(images, height, width, resample)


def _convolved(
    images: Float[Any, "m h w i"], kernels: Float[Any, "m k k i o"]
) -> Float[Any, "m y x o"]:
    """Correlates each image with its own kernel, without padding."""
    height, width = (side - KERNEL + 1 for side in images.shape[1:3])
    parts = [
        einsum("myxi,mio->myxo", images[:, y : y + height, x : x + width], kernels[:, y, x])
        for y in range(KERNEL)
        for x in range(KERNEL)
    ]
    return sum(parts[1:], parts[0])
