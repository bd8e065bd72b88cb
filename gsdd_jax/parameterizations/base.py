"""What a way of storing images is, to everything that optimises them.

An implementation knows nothing of objectives, networks or data sets, and they nothing of it.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.formats.base import Stored

Rate = float | Float[Array, ""]  # of learning
Params = Any  # a pytree, of which `Parameterization.by_image` says more


class Budget(NamedTuple):
    """What a parameterization may take: the bytes of `ipc` float32 images a class."""

    ipc: int
    gpc: int  # Gaussian images a class; how many others fit follows from `ipc`
    num_classes: int = 1
    reserved: int = 0  # bytes a class that something else takes (soft labels)


Transform = Any  # callable from images in [0, 1] to what networks see, with its `inverse`


class Parameterization(Stored):
    """A frozen dataclass of static settings, with pure functions over `Params`."""

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
    def within(
        cls, image_shape: tuple[int, int, int], budget: Budget, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The fields that a budget leaves, by name.

        They are `images_per_class` and whatever else has no default; `options` are checked, and
        prevail. Raises UsageError where not one image fits.
        """
        del image_shape, options
        return {"images_per_class": budget.ipc}

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Params:
        """Where the fit to `images` ([0, 1] space) starts."""

    def select(self, params: Params, indices: Int[Array, "k"]) -> Params:
        """Those of some images."""
        return jax.tree.map(lambda p: p[indices], params)

    @abc.abstractmethod
    def render(self, params: Params) -> Float[Array, "m h w c"]:
        """The images, in [0, 1] space but unclipped; differentiable."""

    def render_at(
        self, params: Params, height: int, width: int, resample: str = "bilinear"
    ) -> Float[Array, "m {height} {width} c"]:
        """The images at another size, in [0, 1] space but unclipped.

        What has no image but at its own size is resampled, by one of `RESAMPLINGS`: pixels have
        half-pixel centres, edges are repeated, and nothing is smoothed where it shrinks. What has
        one at any size renders that, whatever `resample` is.
        """
        images = self.render(params)
        if (height, width) == (self.height, self.width):
            return images
        shape = len(images), height, width, self.channels
        return jax.image.resize(images, shape, resample, antialias=False)

    def enter(self, params: Params, transform: Transform) -> Params:
        """What distillation optimises, of what is fitted and stored; not differentiated."""
        del transform
        return params

    def leave(self, params: Params, transform: Transform) -> Params:
        """The inverse of `enter`."""
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
        return jax.numpy.zeros(())

    def project(self, params: Params) -> Params:
        """Applied after every step."""
        return params

    def report(self, params: Params) -> dict[str, Any]:
        """What is worth knowing of stored parameters, as plain values by name."""
        del params
        return {}

    @abc.abstractmethod
    def to_arrays(self, params: Params) -> dict[str, Array]:
        """Named arrays in the types that are stored and that the budget counts; on the host."""

    @abc.abstractmethod
    def from_arrays(self, arrays: dict[str, Array]) -> Params:
        """The inverse of `to_arrays`, in float32.

        Raises KeyError where one is missing, UsageError for what `to_arrays` would not give.
        """
