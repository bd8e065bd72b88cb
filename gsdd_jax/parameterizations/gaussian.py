"""GSDD: every image a set of 2-D Gaussians (section 3)."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.formats import gaussian as stored
from gsdd_jax.formats.gaussian import FIELDS
from gsdd_jax.parameterizations.base import Budget, Parameterization, Rate
from gsdd_jax.rasterizer import gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages


@dataclasses.dataclass(frozen=True)
class Gaussians(Parameterization, stored.Gaussians):
    """What every way to store Gaussians shares."""

    derived: ClassVar[frozenset[str]] = Parameterization.derived | {"num_gaussians"}

    @abc.abstractmethod
    def seen(self, params: Any) -> GaussianImages:
        """The Gaussians that are rendered: those that would be stored; gradients straight
        through."""

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

    def render(self, params: Any) -> Float[Array, "m h w c"]:
        """Of the Gaussians as they would be stored."""
        return self.render_at(params, self.height, self.width)

    def render_at(
        self, params: Any, height: int, width: int, resample: str = "bilinear"
    ) -> Float[Array, "m {height} {width} c"]:
        """Of the size itself; the pre-filter is one pixel of it."""
        del resample
        seen = self.seen(params)
        if not self.opacity:
            seen = dataclasses.replace(seen, opacities=jnp.ones_like(seen.opacities))
        return seen.render(
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
class Gaussian(Gaussians, stored.Gaussian):
    """As published: nine numbers a Gaussian, in bfloat16."""

    reserves: ClassVar[bool] = True

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

    def seen(self, params: GaussianImages) -> GaussianImages:
        """Rounded to bfloat16."""
        return jax.tree.map(gaussians.round_to_bfloat16, params) if self.bfloat16 else params

    def to_arrays(self, params: GaussianImages) -> dict[str, Array]:
        specs = self.array_specs(len(params.means))
        return {name: getattr(params, name).astype(spec.dtype) for name, spec in specs.items()}

    def from_arrays(self, arrays: dict[str, Array]) -> GaussianImages:
        arrays = {name: jnp.asarray(a).astype(jnp.float32) for name, a in arrays.items()}
        if not self.opacity:
            arrays["opacities"] = jnp.ones(arrays["means"].shape[:-1], jnp.float32)
        return GaussianImages(
            **{name: arrays[name] for name in FIELDS}, height=self.height, width=self.width
        )
