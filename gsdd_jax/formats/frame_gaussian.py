"""Clips as 2-D Gaussians of each frame on its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.formats.clips import folded
from gsdd_jax.formats.gaussian import Gaussian
from gsdd_jax.formats.shapes import Float


@dataclasses.dataclass(frozen=True)
class FrameGaussian(Gaussian):
    """Every frame is an image of `num_gaussians` Gaussians, in bfloat16: no frame knows another."""

    name: ClassVar[str] = "frame_gaussian"

    @property
    def drawn_channels(self) -> int:
        return self.colors

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes((self.frames, self.num_gaussians), self.colors)

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return super().unpack({n: a.reshape(-1, *a.shape[2:]) for n, a in arrays.items()})

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """Rasterizes every frame at that size in NumPy; see `Gaussians.decode`."""
        images = super().decode(params, height, width, resample)
        return folded(images.reshape(-1, self.frames, *images.shape[1:]))
