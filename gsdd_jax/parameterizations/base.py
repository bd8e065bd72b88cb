"""What a way of storing images is, to everything that optimises them.

An implementation knows nothing of objectives, networks or data sets, and they nothing of it.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.base import Format
from gsdd_jax.rasterizer.gaussians import budget_bytes, round_to_bfloat16

Rate = float | Float[Array, ""]  # of learning
Params = Any  # a pytree, of which `Parameterization.by_image` says more
Transform = Any  # callable from images in [0, 1] to what networks see, with its `inverse`


class Budget(NamedTuple):
    """What a parameterization may take: the bytes of `ipc` float32 images a class."""

    ipc: int
    gpc: int  # Gaussian images a class; how many others fit follows from `ipc`
    num_classes: int = 1
    reserved: int = 0  # bytes a class that something else takes (soft labels)


@dataclasses.dataclass(frozen=True)
class Parameterization(Format):
    """A format with what optimises it: pure functions over `Params`.

    Where nothing else is said, parameters are the arrays of `shapes` by name, in float32.
    """

    # Fields that follow from the data set and the budget; all others are options.
    derived: ClassVar[frozenset[str]] = frozenset(
        {"height", "width", "channels", "images_per_class"}
    )
    reserves: ClassVar[bool] = False  # whether it leaves the budget's `reserved` bytes to others
    by_image: ClassVar[bool] = True  # whether what images do not share has them as leading axis

    @property
    def described(self) -> str:
        """What an image is stored as, in a word or two."""
        return self.name

    @classmethod
    def published(cls, image_shape: tuple[int, int, int], ipc: int) -> dict[str, Any]:
        """The options that have no default, for images of that shape and that budget."""
        del image_shape, ipc
        return {}

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Fields of a config as the authors publish them for an objective, by dotted name."""
        del objective
        return {}

    @classmethod
    def suggested_images(cls, image_shape: tuple[int, int, int], ipc: int) -> int:
        """Images per class that suit the budget, where their number is free."""
        del image_shape
        return ipc

    @classmethod
    def within(
        cls, image_shape: tuple[int, int, int], budget: Budget, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The fields that a budget leaves, by name: as many images a class as fit, and `published`.

        `options` are checked, and prevail. Raises UsageError where not one image fits.
        """
        fields = cls.published(image_shape, budget.ipc)
        one = cls(*image_shape, images_per_class=1, **fields | dict(options))
        itemsize = jnp.dtype(one.dtype).itemsize
        bytes_each = itemsize * sum(math.prod(shape) for shape in one.shapes().values())
        there = budget_bytes(budget.ipc, image_shape)
        if there < bytes_each:
            raise UsageError(
                f"budget: one image of {cls.name} takes {bytes_each} bytes, expected at most the "
                f"{there} bytes a class of ipc={budget.ipc}"
            )
        return fields | {"images_per_class": there // bytes_each}

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Params:
        """Where the fit to `images` ([0, 1] space) starts."""

    def select(self, params: Params, indices: Int[Array, "k"]) -> Params:
        """Those of some images."""
        return jax.tree.map(lambda p: p[indices], params)

    def quantized(self, params: Params) -> Params:
        """The parameters as they would be stored; gradients go straight through."""
        if self.dtype == "float32":
            return params
        return params | {name: round_to_bfloat16(params[name]) for name in self.shapes()}

    def render(self, params: Params) -> Float[Array, "m h w c"]:
        """The images, in [0, 1] space but unclipped; differentiable."""
        return self.render_at(params, self.height, self.width)

    def render_at(
        self, params: Params, height: int, width: int, resample: str = "bilinear"
    ) -> Float[Array, "m {height} {width} c"]:
        """The images at another size; as `decode`."""
        return self.decode(self.quantized(params), height, width, resample)

    def to_optimized(self, params: Params, transform: Transform) -> Params:
        """What distillation optimises, of what is fitted and stored; not differentiated."""
        del transform
        return params

    def from_optimized(self, params: Params, transform: Transform) -> Params:
        """The inverse of `to_optimized`."""
        del transform
        return params

    def to_network(self, params: Params, transform: Transform) -> Float[Array, "m h w c"]:
        """What networks see of what distillation optimises: transformed images; differentiable."""
        return transform(self.render(params))

    @abc.abstractmethod
    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        """The published optimizer of this parameterization."""

    def fit_optimizer(self, learning_rate: float, halve_every: int) -> optax.GradientTransformation:
        """Of the fit to real images; `halve_every` steps some rates halve, where the published
        fit's do. 0: never."""
        del halve_every
        return self.optimizer(learning_rate)

    def penalty(self, params: Params) -> Float[Array, ""]:
        """Added to every distillation objective, weight included."""
        del params
        return jnp.zeros(())

    def project(self, params: Params) -> Params:
        """Applied after every step."""
        return params

    def report(self, params: Params) -> dict[str, Any]:
        """What is worth knowing of stored parameters, as plain values by name."""
        del params
        return {}

    def to_arrays(self, params: Params) -> dict[str, Any]:
        """The arrays of a file by name, bfloat16 as float32."""
        stored = self.quantized(params)
        return {name: stored[name] for name in self.shapes()}

    def from_arrays(self, arrays: Mapping[str, Any]) -> Params:
        """The inverse of `to_arrays`; raises UsageError as `unpack`."""
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        return jax.tree.map(jnp.asarray, self.unpack(arrays))
