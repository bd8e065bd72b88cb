"""Images as sets of Gaussians."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.options import Limits
from gsdd_jax.formats import raster
from gsdd_jax.formats.base import Format
from gsdd_jax.formats.shapes import Float
from gsdd_jax.rasterizer.limits import MAX_SAMPLES_PER_SIDE

FIELDS = ("means", "cholesky", "colors", "opacities")
CLIP_GRADIENTS = ("stop", "pass")


@dataclasses.dataclass(frozen=True)
class Gaussians(Format):
    """What every way to store Gaussians shares; the switches are the paper's ablations (Table 3).

    `opacity=False` keeps every opacity at 1; it is then neither optimised nor stored.
    """

    limits: ClassVar[Limits] = Format.limits | {
        "samples_per_side": (1, MAX_SAMPLES_PER_SIDE),
        "clip_gradient": CLIP_GRADIENTS,
    }
    num_gaussians: int
    samples_per_side: int = 2
    prefilter: bool = True
    opacity: bool = True
    boundary_weight: float = 0.1
    clip_gradient: str = "stop"  # or "pass"; see `gsdd_jax.rasterize`
    clip_means: bool = True  # after every step; without, centres can escape (section A.4)

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """The Gaussians at that size, in NumPy alone; the pre-filter is one pixel of it.

        Parameters are `counts`, how many each image has, and those of all images, one after the
        other, by field.
        """
        del resample
        return raster.rasterize(
            **params,
            height=height,
            width=width,
            scale=(width / self.width, height / self.height),
            samples_per_side=self.samples_per_side,
            prefilter=self.prefilter,
        )

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Of the sample points of one image at a time, and of a Gaussian that reaches all."""
        del num_images
        return 8 * height * width * self.samples_per_side**2 * (2 * self.channels + 4)


@dataclasses.dataclass(frozen=True)
class Gaussian(Gaussians):
    """As published: nine numbers a Gaussian, in bfloat16."""

    name: ClassVar[str] = "gaussian"
    bfloat16: bool = True

    @property
    def dtype(self) -> str:
        """Of all arrays."""
        return "bfloat16" if self.bfloat16 else "float32"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        last = {"means": (2,), "cholesky": (3,), "colors": (self.channels,), "opacities": ()}
        stored = FIELDS if self.opacity else FIELDS[:-1]
        return {name: (self.num_gaussians, *last[name]) for name in stored}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        counts = np.full(len(arrays["means"]), self.num_gaussians)
        named = {name: a.reshape(-1, *a.shape[2:]) for name, a in arrays.items()}
        if not self.opacity:
            named["opacities"] = np.ones(len(named["means"]), np.float32)
        return named | {"counts": counts}
