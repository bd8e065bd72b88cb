"""GSDD of clips: sets of Gaussians in space and time."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Array, Float, Key

from gsdd_jax.formats import video_gaussian
from gsdd_jax.parameterizations.base import Options, Shape
from gsdd_jax.parameterizations.gaussian import Gaussian, Gaussians
from gsdd_jax.rasterizer import clips
from gsdd_jax.rasterizer.clips import GaussianClips


@dataclasses.dataclass(frozen=True)
class Moving(Gaussians, video_gaussian.Moving):
    """Base of parameterizations by Gaussians in space and time."""

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        """Returns clips of as many Gaussians as an image, times the root of the frames.

        Chosen here, not tuned.
        """
        images = super().suggested_images(image_shape, bytes_per_class, options)
        return int(images / math.sqrt(options.get("frames", 1)))

    def built(self, fields: Mapping[str, Any]) -> GaussianClips:
        of_clip = dict(frames=self.frames, height=self.height, width=self.width)
        return GaussianClips(**fields, **of_clip)

    def project(self, params: GaussianClips) -> GaussianClips:
        return clips.clip_times(super().project(params))


@dataclasses.dataclass(frozen=True)
class VideoGaussian(Gaussian, Moving, video_gaussian.VideoGaussian):
    """Gaussians that move through a clip; the budget sets their number as for images."""

    geometry_numbers: ClassVar[int] = clips.GEOMETRY_NUMBERS

    @classmethod
    def bytes_per_gaussian(cls, channels: int, options: Options) -> float:
        return super().bytes_per_gaussian(channels // options.get("frames", 1), options)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> GaussianClips:
        return clips.init(key, images, self.num_gaussians, self.frames)
