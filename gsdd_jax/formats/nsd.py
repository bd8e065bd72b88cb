"""Images as spectrum tensors that kernels map to pixels, each tensor by each kernel (NSD)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import einsum, resize
from gsdd_jax.formats.base import PLAIN, dtype_field
from gsdd_jax.formats.pairs import Paired
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_SIDE

TENSORS = "tensors"
ROWS, COLUMNS, COLORS = "rows", "columns", "colors"
MOST = 1 << 14


@dataclasses.dataclass(frozen=True)
class NSD(Paired):
    """Products of a class's spectrum tensors and the matrices of kernels that all classes share.

    A kernel has a matrix for each axis of a tensor: to rows, to columns and to colors.
    """

    name: ClassVar[str] = "nsd"
    held: ClassVar[str] = TENSORS
    partner: ClassVar[str] = "kernels"
    kernels: int = field(..., "kernels that all spectrum tensors share", most=MOST)
    rank: int = field(..., "channels of a spectrum tensor", most=MOST)
    size: int = field(..., "rows and columns of a spectrum tensor", most=MAX_SIDE)
    dtype: str = dtype_field(PLAIN)

    def __post_init__(self):
        if self.size > min(self.height, self.width):
            raise UsageError(
                f"parameterization nsd: size: expected at most the sides of images of "
                f"{self.height} x {self.width} pixels, got {self.size}"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of one spectrum tensor."""
        return {TENSORS: (self.size, self.size, self.rank)}

    def shared_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            ROWS: (self.kernels, self.height, self.size),
            COLUMNS: (self.kernels, self.width, self.size),
            COLORS: (self.kernels, self.channels, self.rank),
        }

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        of = self.of_images(params)
        images = einsum("myxr,mcr->myxc", of[TENSORS], of[COLORS])
        images = einsum("myxc,mhy->mhxc", images, of[ROWS])
        images = einsum("mhxc,mwx->mhwc", images, of[COLUMNS])
        return resize(images, height, width, resample)

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of the images, and of one image's copies of what it is made of."""
        return super().working_bytes(num_images, height, width) + self.bytes_of_copies

    @property
    def bytes_of_copies(self) -> int:
        """Bytes of a spectrum tensor and a kernel in float32."""
        sides, values = self.height + self.width, self.size**2 + self.channels
        return 4 * (sides * self.size + values * self.rank)
