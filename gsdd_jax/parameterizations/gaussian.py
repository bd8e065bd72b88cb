"""GSDD: every image a set of 2-D Gaussians (section 3)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.formats import gaussian
from gsdd_jax.formats.gaussian import FIELDS
from gsdd_jax.parameterizations.base import Budget, Parameterization, Rate
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages


@dataclasses.dataclass(frozen=True)
class Gaussians(Parameterization, gaussian.Gaussians):
    """What every way to store Gaussians shares; `quantized` are the Gaussians that are rendered."""

    derived: ClassVar[frozenset[str]] = Parameterization.derived | {"num_gaussians"}
    reserves: ClassVar[bool] = True

    @classmethod
    def suggested_images(cls, image_shape: tuple[int, int, int], ipc: int) -> int:
        """22 Gaussians an image at 32 x 32, as published, and twice as many at twice the side."""
        height, width, channels = image_shape
        in_budget = 2 * ipc * height * width * channels // (6 + channels)
        return int(in_budget / (22 * math.sqrt(height * width) / 32))

    def offsets(self, params: Any) -> Int[Array, "bounds"] | None:
        """Where the Gaussians of each image begin, where they lie in one array."""
        del params
        return None

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> GaussianImages:
        """Random Gaussians (section 2's initial values); `images` gives only their number."""
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
        """The Gaussians at that size, by the rasterizer; the pre-filter is one pixel of it."""
        del resample
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
        """The rate of the means alone halves every so many steps."""
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

    def project(self, params: GaussianImages) -> GaussianImages:
        return gaussians.clip_means(params) if self.clip_means else params


@dataclasses.dataclass(frozen=True)
class Gaussian(Gaussians, gaussian.Gaussian):
    """As published: nine numbers a Gaussian, in bfloat16."""

    @property
    def described(self) -> str:
        """How many Gaussians."""
        return f"{self.num_gaussians} Gaussians"

    @classmethod
    def within(
        cls, image_shape: tuple[int, int, int], budget: Budget, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`gpc` images a class, and as many Gaussians in each as their bytes hold."""
        bytes_per_number = 2 if options.get("bfloat16", cls.bfloat16) else 4
        count = gaussians.gaussians_within_budget(
            budget.ipc, budget.gpc, image_shape, bytes_per_number, budget.reserved
        )
        return {"images_per_class": budget.gpc, "num_gaussians": count}

    def quantized(self, params: GaussianImages) -> GaussianImages:
        """Rounded to bfloat16."""
        return jax.tree.map(gaussians.round_to_bfloat16, params) if self.bfloat16 else params

    def to_arrays(self, params: GaussianImages) -> dict[str, Array]:
        stored = self.quantized(params)
        return {name: getattr(stored, name) for name in self.shapes()}

    def from_arrays(self, arrays: Mapping[str, Any]) -> GaussianImages:
        arrays = {name: jnp.asarray(a) for name, a in arrays.items()}
        if not self.opacity:
            arrays["opacities"] = jnp.ones(arrays["means"].shape[:-1], jnp.float32)
        return GaussianImages(
            **{name: arrays[name] for name in FIELDS}, height=self.height, width=self.width
        )
