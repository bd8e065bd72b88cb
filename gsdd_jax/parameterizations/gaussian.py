"""GSDD: images as sets of 2-D Gaussians (section 3)."""

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.formats import gaussian
from gsdd_jax.parameterizations.base import (
    Budget,
    Options,
    Parameterization,
    Rate,
    Shape,
    check_images,
    on_device,
)
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages


@dataclasses.dataclass(frozen=True)
class Gaussians(Parameterization, gaussian.Gaussians):
    """Base of all parameterizations by Gaussians; `quantized` returns the Gaussians to render."""

    derived: ClassVar[frozenset[str]] = Parameterization.derived | {"num_gaussians"}
    reserves: ClassVar[bool] = True

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        """Returns images for the published 22 Gaussians each at 32 x 32, 44 at twice the side."""
        height, width, channels = image_shape
        in_budget = bytes_per_class // cls.bytes_per_gaussian(channels, options)
        return int(in_budget / (22 * math.sqrt(height * width) / 32))

    @classmethod
    @abc.abstractmethod
    def bytes_per_gaussian(cls, channels: int, options: Options) -> float:
        """Returns the bytes that a Gaussian takes."""

    def built(self, fields: Mapping[str, Any]) -> Any:
        """Returns the Gaussians that have such fields."""
        return GaussianImages(**fields, height=self.height, width=self.width)

    def offsets(self, params: Any) -> Int[Array, "bounds"] | None:
        """Returns where each image's Gaussians begin in one array; None: each has its own array."""
        return None

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Any:
        """Returns random Gaussians (section 2); `images` gives only their number."""
        return gaussians.init(
            key,
            len(images),
            self.num_gaussians,
            height=self.height,
            width=self.width,
            channels=self.channels,
        )

    def render_at(
        self, params: Any, height: int, width: int, resample: str = "bilinear"
    ) -> Float[Array, "m {height} {width} c"]:
        """Rasterizes the Gaussians at another size; the pre-filter is one pixel at that size."""
        shown = self.quantized(params)
        if not self.opacity:
            shown = dataclasses.replace(shown, opacities=jnp.ones_like(shown.opacities))
        return shown.render(
            height,
            width,
            offsets=self.offsets(params),
            samples_per_side=self.samples_per_side,
            prefilter=self.prefilter,
            clip_gradient=self.clip_gradient,
        )

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.adam(learning_rate)

    def fit_optimizer(self, learning_rate: float, halve_every: int) -> optax.GradientTransformation:
        """Returns Adam; only the rate of the means halves."""
        if not halve_every:
            return self.optimizer(learning_rate)
        halving = optax.exponential_decay(learning_rate, halve_every, 0.5, staircase=True)
        field_of = lambda path: "means" if path[-1].name == "means" else "others"
        return optax.multi_transform(
            {"means": optax.adam(halving), "others": self.optimizer(learning_rate)},
            lambda params: jax.tree_util.tree_map_with_path(lambda p, _: field_of(p), params),
        )

    def penalty(self, params: Any) -> Float[Array, ""]:
        return self.boundary_weight * gaussians.boundary_loss(params.means)

    def project(self, params: Any) -> Any:
        return gaussians.clip_means(params) if self.clip_means else params


@dataclasses.dataclass(frozen=True)
class Gaussian(Gaussians, gaussian.Gaussian):
    """Published storage: nine numbers per Gaussian, in bfloat16."""

    geometry_numbers: ClassVar[int] = gaussians.GEOMETRY_NUMBERS  # per Gaussian, without color

    @property
    def described(self) -> str:
        return f"{self.num_gaussians} Gaussians"

    @classmethod
    def within(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the images per class, and the Gaussians per image that their bytes hold."""
        images, channels = check_images(budget.images_per_class), image_shape[-1]
        of_all = int(images * cls.bytes_per_gaussian(channels, options))
        if not (count := max(0, budget.free) // of_all):
            raise budget.refusal(images, "Gaussians", of_all)
        return {"images_per_class": images, "num_gaussians": count}

    @classmethod
    def bytes_per_gaussian(cls, channels: int, options: Options) -> float:
        of_number = 2 if options.get("bfloat16", cls.bfloat16) else 4
        return float(of_number * (cls.geometry_numbers + channels))

    def quantized(self, params: Any) -> Any:
        return jax.tree.map(gaussians.round_to_bfloat16, params) if self.bfloat16 else params

    def to_arrays(self, params: Any) -> dict[str, Array]:
        stored = _quantized(self, params)
        return {name: getattr(stored, name) for name in self.shapes()}

    def from_arrays(self, arrays: Mapping[str, Any]) -> Any:
        if not self.opacity:
            opacities = np.ones(arrays["means"].shape[:-1], np.float32)
            arrays = {**arrays, "opacities": opacities}
        return self.built(on_device(dict(arrays)))


@functools.partial(jax.jit, static_argnums=0)  # one program for all arrays
def _quantized(kind: Gaussian, params: Any) -> Any:
    return kind.quantized(params)
