"""Images as sets of Gaussians."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.fields import field
from gsdd_jax.formats import raster
from gsdd_jax.formats.base import Format
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_SAMPLES_PER_SIDE

FIELDS = ("means", "cholesky", "colors", "opacities")
CLIP_GRADIENTS = ("stop", "pass")


@dataclasses.dataclass(frozen=True)
class Gaussians(Format):
    """Base of all formats of Gaussians; the switches are the paper's ablations (Table 3)."""

    num_gaussians: int = field(..., "Gaussians per image")
    samples_per_side: int = field(
        2, "sample points per pixel side (anti-aliasing)", most=MAX_SAMPLES_PER_SIDE
    )
    prefilter: bool = field(
        True, "True: widen every Gaussian by a filter of one pixel (anti-aliasing)"
    )
    opacity: bool = field(True, "False: every opacity is 1, neither optimized nor stored")
    boundary_weight: float = field(
        0.1, "weight of the boundary loss, for centers outside the image"
    )
    clip_gradient: str = field(
        "stop", "gradient of weights clipped at 1: stop (zero) or pass", choices=CLIP_GRADIENTS
    )
    clip_means: bool = field(True, "True: centers are clipped to the image after every step")

    @property
    def drawn_channels(self) -> int:
        """Channels of what is rasterized at once."""
        return self.channels

    @property
    def most_gaussians(self) -> int:
        """Gaussians of the image with most of them."""
        return self.num_gaussians

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """Rasterizes the Gaussians at that size in NumPy; the pre-filter is one of its pixels.

        Parameters are `counts`, Gaussians per image, and the concatenated fields of all Gaussians.
        """
        return raster.rasterize(
            **params,
            height=height,
            width=width,
            scale=(width / self.width, height / self.height),
            samples_per_side=self.samples_per_side,
            prefilter=self.prefilter,
        )

    def rendered(
        self, params: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        return self.decode(params, height, width, resample)  # which goes image by image

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of one image's sample points, and of a Gaussian that covers it."""
        return 8 * height * width * self.samples_per_side**2 * (2 * self.drawn_channels + 4)


@dataclasses.dataclass(frozen=True)
class Gaussian(Gaussians):
    """Published storage: nine numbers per Gaussian, in bfloat16."""

    name: ClassVar[str] = "gaussian"
    takes_clips: ClassVar[bool] = True
    bfloat16: bool = field(True, "True: stored in bfloat16; False: in float32")

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.bfloat16 else "float32"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes((self.num_gaussians,), self.channels)

    def _shapes(self, gaussians: tuple[int, ...], channels: int) -> dict[str, tuple[int, ...]]:
        """Returns the stored fields of an array of Gaussians."""
        last = {"means": (2,), "cholesky": (3,), "colors": (channels,), "opacities": ()}
        stored = FIELDS if self.opacity else FIELDS[:-1]
        return {name: (*gaussians, *last[name]) for name in stored}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        counts = np.full(len(arrays["means"]), self.num_gaussians)
        named = {name: a.reshape(-1, *a.shape[2:]) for name, a in arrays.items()}
        if not self.opacity:
            named["opacities"] = np.ones(len(named["means"]), np.float32)
        return named | {"counts": counts}
