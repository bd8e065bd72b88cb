"""Interface of a pretrained generator: settings, and pure functions of its weights."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Array, Float, Key

from gsdd_jax.core.fields import field
from gsdd_jax.rasterizer.limits import MAX_CHANNELS, MAX_SIDE

Arrays = Mapping[str, Any]  # float32, by name


@dataclasses.dataclass(frozen=True)
class Generator(abc.ABC):
    """Frozen dataclass of settings, as in the file of the weights.

    Latents are arrays by name that lead with images. They stand at one of `num_layers` layers; the
    input of the generator is layer 0.
    """

    name: ClassVar[str]
    height: int = field(..., "pixels", most=MAX_SIDE)
    width: int = field(..., "pixels", most=MAX_SIDE)
    channels: int = field(..., "1 (gray) to 4", most=MAX_CHANNELS)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        return self.height, self.width, self.channels

    @property
    @abc.abstractmethod
    def num_layers(self) -> int:
        """Number of layers that latents can stand at."""

    @abc.abstractmethod
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the weights, by name."""

    @abc.abstractmethod
    def latent_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of one image's latents, by name."""

    @abc.abstractmethod
    def begin(self, weights: Arrays, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Any:
        """Returns latents at layer 0 to start from: of `images` in [0, 1], or random ones."""

    @abc.abstractmethod
    def advance(self, weights: Arrays, latents: Arrays, layer: int) -> Any:
        """Returns the latents at the layer after `layer`."""

    @abc.abstractmethod
    def images(self, weights: Arrays, latents: Arrays) -> Float[Array, "m h w c"]:
        """Returns the images of latents at the last layer, in [0, 1] but unclipped."""

    def rate(self, name: str) -> float:
        """Returns the factor of the learning rate for latents of that name."""
        del name
        return 1.0

    def advanced(self, weights: Arrays, latents: Arrays, layer: int, to: int) -> Any:
        """Returns latents at a later layer, or at the same."""
        for i in range(layer, to):
            latents = self.advance(weights, latents, i)
        return latents
