"""GSDD of clips: sets of Gaussians in space and time."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Array, Float, Key

from gsdd_jax.formats import video_gaussian
from gsdd_jax.parameterizations.base import Options, Shape, on_device
from gsdd_jax.parameterizations.gaussian import Gaussian
from gsdd_jax.rasterizer import clips
from gsdd_jax.rasterizer.clips import GaussianClips


@dataclasses.dataclass(frozen=True)
class VideoGaussian(Gaussian, video_gaussian.VideoGaussian):
    """Gaussians that move through a clip; the budget sets their number as for images."""

    geometry_numbers: ClassVar[int] = clips.GEOMETRY_NUMBERS

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        """Returns clips of as many Gaussians as an image, times the root of the frames.

        Chosen here, not tuned.
        """
        images = super().suggested_images(image_shape, bytes_per_class, options)
        return int(images / math.sqrt(options.get("frames", 1)))

    @classmethod
    def bytes_per_gaussian(cls, channels: int, options: Options) -> float:
        return super().bytes_per_gaussian(channels // options.get("frames", 1), options)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> GaussianClips:
        return clips.init(key, images, self.num_gaussians, self.frames)

    def project(self, params: GaussianClips) -> GaussianClips:
        return clips.clip_times(super().project(params))

    def from_arrays(self, arrays: Mapping[str, Any]) -> GaussianClips:
        fields = on_device(self.unpack(arrays))
        of_clip = dict(frames=self.frames, height=self.height, width=self.width)
        return GaussianClips(**fields, **of_clip)
