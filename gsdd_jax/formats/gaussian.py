"""Images as sets of Gaussians."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.options import Limits
from gsdd_jax.formats import raster
from gsdd_jax.formats.base import Spec, Stored
from gsdd_jax.formats.shapes import Float

FIELDS = ("means", "cholesky", "colors", "opacities")
CLIP_GRADIENTS = ("stop", "pass")


@dataclasses.dataclass(frozen=True)
class Gaussians(Stored):
    """What every way to store Gaussians shares; the switches are the paper's ablations (Table 3).

    `opacity=False` keeps every opacity at 1; it is then neither optimised nor stored.
    """

    limits: ClassVar[Limits] = Stored.limits | {
        "samples_per_side": (1, raster.MAX_SAMPLES_PER_SIDE),
        "clip_gradient": CLIP_GRADIENTS,
    }
    height: int
    width: int
    channels: int
    images_per_class: int
    num_gaussians: int
    samples_per_side: int = 2
    prefilter: bool = True
    opacity: bool = True
    boundary_weight: float = 0.1
    clip_gradient: str = "stop"  # or "pass"; see `gsdd_jax.rasterize`
    clip_means: bool = True  # after every step; without, centres can escape (section A.4)

    @abc.abstractmethod
    def opened(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`counts`, how many each image has, and those of all images, one after the other, by
        field."""

    def decode(
        self, opened: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """Of the size itself; the pre-filter is one pixel of it."""
        del resample
        return raster.rasterize(
            **opened,
            height=height,
            width=width,
            scale=(width / self.width, height / self.height),
            samples_per_side=self.samples_per_side,
            prefilter=self.prefilter,
        )


@dataclasses.dataclass(frozen=True)
class Gaussian(Gaussians):
    """As published: nine numbers a Gaussian, in bfloat16."""

    name: ClassVar[str] = "gaussian"
    later: ClassVar[dict[str, Any]] = {"clip_gradient": "stop", "clip_means": True}
    bfloat16: bool = True

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        dtype = "bfloat16" if self.bfloat16 else "float32"
        last = {"means": (2,), "cholesky": (3,), "colors": (self.channels,), "opacities": ()}
        return {
            name: Spec((num_images, self.num_gaussians, *last[name]), dtype)
            for name in (FIELDS if self.opacity else FIELDS[:-1])
        }

    def opened(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        counts = np.full(len(arrays["means"]), self.num_gaussians)
        named = {name: a.reshape(-1, *a.shape[2:]) for name, a in arrays.items()}
        if not self.opacity:
            named["opacities"] = np.ones(len(named["means"]), np.float32)
        return named | {"counts": counts}
