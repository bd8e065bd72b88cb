"""Images as bases that hallucinators show, each base by each of them (HaBa)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import einsum, namespace, resize
from gsdd_jax.formats.base import PLAIN, Contents, Format, Spec, dtype_field
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_CHANNELS

BASES, PAIRS = "bases", "pairs"
ENCODER, SCALE, SHIFT, DECODER = "encoder", "scale", "shift", "decoder"
ENCODER_BIAS, DECODER_BIAS = "encoder_bias", "decoder_bias"
KERNEL = 3  # pixels per side of a convolution's kernel, as published


@dataclasses.dataclass(frozen=True)
class HaBa(Format):
    """Hallucinators of two convolutions with a scale and a shift of each feature between them.

    The first convolution has no padding, so that features are two pixels smaller. The second one is
    transposed and restores the size. Image i of a class is its base i // hallucinators by
    hallucinator i % hallucinators.
    """

    name: ClassVar[str] = "haba"
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

    @property
    def bases_per_class(self) -> int:
        return -(-self.images_per_class // self.hallucinators)

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

    def is_shared(self, name: str) -> bool:
        return name != PAIRS

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        bases = num_images // self.images_per_class * self.bases_per_class
        specs = super().array_specs(num_images)
        return specs | {BASES: Spec((bases, *self.shapes()[BASES]), self.dtype)}

    def _axes(self) -> dict[str, str]:
        return super()._axes() | {BASES: "by_class"}

    def divided(self, arrays: Mapping[str, np.ndarray]) -> Contents:
        found, (shape,) = super().divided(arrays), self.shapes().values()
        found.by_class[BASES] = found.by_class[BASES].reshape(-1, self.bases_per_class, *shape)
        return found

    def resized(
        self, contents: Contents, images_per_class: int, num_classes: int
    ) -> tuple[Format, dict[str, np.ndarray]]:
        kind, arrays = super().resized(contents, images_per_class, num_classes)
        kept = arrays[BASES][:, : kind.bases_per_class]
        return kind, arrays | {BASES: kept.reshape(-1, *kept.shape[2:])}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the arrays, and the base and the hallucinator of every image."""
        classes = len(arrays[BASES]) // self.bases_per_class
        return dict(arrays) | {PAIRS: self.pairs(classes * self.images_per_class)}

    def pairs(self, num_images: int) -> Float[np.ndarray, "m 2"]:
        """Returns the base and the hallucinator of each image; float32, since differentiated."""
        of_class, place = np.divmod(np.arange(num_images), self.images_per_class)
        base, hallucinator = np.divmod(place, self.hallucinators)
        bases = of_class * self.bases_per_class + base
        return np.stack([bases, hallucinator], -1).astype(np.float32)

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        base, hallucinator = params[PAIRS].astype(np.int32).T
        of = {name: params[name][hallucinator] for name in self.shared_shapes()}
        features = _convolved(params[BASES][base], of[ENCODER]) + of[ENCODER_BIAS][:, None, None]
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
