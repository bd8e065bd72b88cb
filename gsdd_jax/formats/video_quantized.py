"""Clips as Gaussians in space and time in codes on uniform grids, entropy-coded."""

import dataclasses
import math
from typing import Any, ClassVar

from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.formats.quantized import Quantized
from gsdd_jax.formats.shapes import Float
from gsdd_jax.formats.video_gaussian import LEAST_EXTENT, Moving


@dataclasses.dataclass(frozen=True)
class VideoQuantized(Moving, Quantized):
    """`quantized` for clips: also times, velocities and logarithms of extents on grids."""

    name: ClassVar[str] = "video_quantized"
    coded: ClassVar[float] = 0.72
    bits_times: int = field(5, "bits per point in time, before coding", 2, 8)
    bits_velocities: int = field(5, "bits per coordinate of a velocity, before coding", 2, 8)
    bits_extents: int = field(4, "bits per extent in time, before coding", 2, 8)

    @property
    def layout(self) -> dict[str, tuple[tuple[int, ...], int]]:
        return super().layout | {
            "times": ((), self.bits_times),
            "velocities": ((2,), self.bits_velocities),
            "extents": ((), self.bits_extents),
        }

    def fields(self, columns: Float[Any, "n columns"]) -> dict[str, Any]:
        """Returns Gaussians by field; extents are at least `LEAST_EXTENT`."""
        found, xp = super().fields(columns), namespace(columns)
        logs = xp.maximum(found["extents"], math.log(LEAST_EXTENT))
        return found | {"extents": xp.exp(logs)}
