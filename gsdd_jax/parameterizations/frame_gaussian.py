"""Clips as 2-D Gaussians of each frame: GSDD of images, frame by frame."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import frame_gaussian
from gsdd_jax.formats.clips import folded
from gsdd_jax.parameterizations.base import Options
from gsdd_jax.parameterizations.gaussian import Gaussian
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages


@dataclasses.dataclass(frozen=True)
class FrameGaussian(Gaussian, frame_gaussian.FrameGaussian):
    """Gaussians of every frame; a baseline of `video_gaussian`.

    The budget sets their number as for images. Clips are as many as suggested for images of as many
    Gaussians as all frames have.
    """

    @classmethod
    def bytes_per_gaussian(cls, channels: int, options: Options) -> float:
        """Returns the bytes of a Gaussian in each frame."""
        frames = options.get("frames", 1)
        return frames * super().bytes_per_gaussian(channels // frames, options)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> GaussianImages:
        """Returns random Gaussians for every frame; `images` gives only the number of clips."""
        size = dict(height=self.height, width=self.width, channels=self.colors)
        drawn = gaussians.init(key, len(images) * self.frames, self.num_gaussians, **size)
        return jax.tree.map(lambda a: a.reshape(-1, self.frames, *a.shape[1:]), drawn)

    def render_at(
        self, params: Any, height: int, width: int, resample: str = "bilinear"
    ) -> Float[Array, "m {height} {width} c"]:
        """Rasterizes all frames by one call."""
        of_frames = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), params)
        images = super().render_at(of_frames, height, width, resample)
        return folded(images.reshape(-1, self.frames, *images.shape[1:]))
