"""GSDD of clips in codes: Gaussians in space and time on uniform grids, entropy-coded."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import video_quantized
from gsdd_jax.formats.video_gaussian import LEAST_EXTENT
from gsdd_jax.parameterizations.quantized import Quantized
from gsdd_jax.parameterizations.video_gaussian import Moving
from gsdd_jax.rasterizer import clips
from gsdd_jax.rasterizer.clips import GaussianClips


@dataclasses.dataclass(frozen=True)
class VideoQuantized(Quantized, Moving, video_quantized.VideoQuantized):
    """`video_gaussian` in a few bits per number, as `quantized` is of `gaussian`."""

    def drawn(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> GaussianClips:
        """Returns Gaussians as `video_gaussian` begins with, one clip after the other."""
        drawn = clips.init(key, images, self.most_gaussians, self.frames)
        clip, number = np.nonzero(np.arange(self.most_gaussians) < self.counts[:, None])
        return jax.tree.map(lambda leaf: leaf[clip, number], drawn)

    def first_ends(self) -> dict[str, list[tuple[float, float]]]:
        return super().first_ends() | {
            "times": [(0.0, 1.0)],
            "velocities": [(-2.0, 2.0)] * 2,
            "extents": [(math.log(LEAST_EXTENT), math.log(4.0))],
        }

    def columns(self, g: Any) -> dict[str, Float[Array, "n _"]]:
        found = super().columns(g)
        return found | {"extents": jnp.log(jnp.maximum(found["extents"], LEAST_EXTENT))}
