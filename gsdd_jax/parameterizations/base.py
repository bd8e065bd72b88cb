"""What a way of storing images is, to everything that optimises them.

An implementation knows nothing of objectives, networks or data sets, and they nothing of it.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax
import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.options import Limits
from gsdd_jax.rasterizer.rasterize import MAX_CHANNELS

MAX_SIDE = 4096  # pixels of a height or width; more would not be rendered but end the process
Params = Any  # a pytree whose leaves all have the images as their leading axis

Transform = Any  # callable from images in [0, 1] to what networks see, with its `inverse`


class Parameterization(abc.ABC):
    """A frozen dataclass of static settings, with pure functions over `Params`."""

    name: ClassVar[str]
    later: ClassVar[dict[str, Any]] = {}  # settings that older files lack, and what they mean then
    limits: ClassVar[Limits] = {
        "height": (1, MAX_SIDE),
        "width": (1, MAX_SIDE),
        "channels": (1, MAX_CHANNELS),
    }
    height: int
    width: int
    channels: int
    images_per_class: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.height, self.width, self.channels

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Params:
        """Where the fit to `images` ([0, 1] space) starts."""

    @abc.abstractmethod
    def render(self, params: Params) -> Float[Array, "m h w c"]:
        """The images, in [0, 1] space but unclipped; differentiable."""

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
    def optimizer(self, learning_rate: float) -> optax.GradientTransformation:
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

    @abc.abstractmethod
    def array_specs(self, num_images: int) -> dict[str, jax.ShapeDtypeStruct]:
        """What `to_arrays` gives for that many images: shapes and stored types by name."""

    @abc.abstractmethod
    def to_arrays(self, params: Params) -> dict[str, Array]:
        """Named arrays in the types that are stored and that the budget counts."""

    @abc.abstractmethod
    def from_arrays(self, arrays: dict[str, Array]) -> Params:
        """The inverse of `to_arrays`, in float32. Raises KeyError where one is missing."""
