"""Images as weighted sums of bases that all classes share (Remember the Past)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import einsum, resize
from gsdd_jax.formats.base import PLAIN, Format, dtype_field
from gsdd_jax.formats.idc import check_factor
from gsdd_jax.formats.shapes import Float

ADDRESSES, BASES = "addresses", "bases"
MOST_BASES = 1 << 14


@dataclasses.dataclass(frozen=True)
class RTP(Format):
    """An address per image, a weight of each base; the sum is enlarged bilinearly."""

    name: ClassVar[str] = "rtp"
    bases: int = field(
        ..., "bases that all images share; published: 16 at IPC 1 on CIFAR-10", most=MOST_BASES
    )
    factor: int = field(2, "factor by which both sides of the bases are reduced; must divide them")
    dtype: str = dtype_field(PLAIN)

    def __post_init__(self):
        check_factor(self)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {ADDRESSES: (self.bases,)}

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.height // self.factor, self.width // self.factor
        return {BASES: (self.bases, *size, self.channels)}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        small = einsum("mr,rhwc->mhwc", params[ADDRESSES], params[BASES])
        images = resize(small, self.height, self.width, "bilinear")
        return resize(images, height, width, resample)
