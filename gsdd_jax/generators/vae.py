"""A small variational autoencoder (Kingma & Welling, 2014), which trains in minutes on a CPU."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.generators.base import Arrays, Generator
from gsdd_jax.ops.conv import conv

FACTOR = 4  # of both sides, between images and the input
LATENTS, FEATURES = "latents", "features"


@dataclasses.dataclass(frozen=True)
class VAE(Generator):
    """Convolutions of 3 x 3; squares of 2 x 2 pixels become channels, and channels such squares.

    Layer 0 is the grid of the latent variables. Layers 1 and 2 are features of the decoder, with a
    quarter and half of the image's sides.
    """

    name: ClassVar[str] = "vae"
    num_layers: ClassVar[int] = 3
    latent_channels: int = field(4, "latent variables per place", most=1024)
    features: int = field(32, "features where the sides are half the image's", most=1024)

    def __post_init__(self):
        if self.height % FACTOR or self.width % FACTOR:
            raise UsageError(
                f"generator vae: expected sides that are multiples of {FACTOR}, got "
                f"{self.height} x {self.width}"
            )

    def _channels(self) -> dict[str, tuple[int, int]]:
        """Returns the channels before and after each convolution."""
        few, many, latent = self.features, 2 * self.features, self.latent_channels
        return {
            "encoder_0": (4 * self.channels, few),
            "encoder_1": (4 * few, many),
            "encoder_2": (many, 2 * latent),
            "decoder_0": (latent, many),
            "decoder_1": (many, 4 * few),
            "decoder_2": (few, few),
            "decoder_3": (few, 4 * self.channels),
        }

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        channels = self._channels()
        kernels = {f"{name}/kernel": (3, 3, *of) for name, of in channels.items()}
        return kernels | {f"{name}/bias": (out,) for name, (_, out) in channels.items()}

    def init(self, key: Key[Array, ""]) -> dict[str, Array]:
        """Returns random weights (He et al., 2015); biases are 0."""
        found = {}
        for i, (name, shape) in enumerate(self.weight_shapes().items()):
            scale = math.sqrt(2 / math.prod(shape[:-1])) if len(shape) > 1 else 0.0
            found[name] = scale * jax.random.normal(jax.random.fold_in(key, i), shape)
        return found

    def latent_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        rows, columns = self.height // FACTOR, self.width // FACTOR
        if layer == 0:
            return {LATENTS: (rows, columns, self.latent_channels)}
        if layer == 1:
            return {FEATURES: (rows, columns, 2 * self.features)}
        return {FEATURES: (2 * rows, 2 * columns, self.features)}

    def encode(
        self, weights: Arrays, images: Float[Array, "m h w c"]
    ) -> tuple[Float[Array, "m y x z"], Float[Array, "m y x z"]]:
        """Returns mean and logarithm of the variance of the latent variables."""
        x = jax.nn.relu(_conv(weights, "encoder_0", _folded(images - 0.5)))
        x = jax.nn.relu(_conv(weights, "encoder_1", _folded(x)))
        mean, log_variance = jnp.split(_conv(weights, "encoder_2", x), 2, axis=-1)
        return mean, log_variance

    def begin(self, weights: Arrays, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Any:
        """Returns the means of the images' latent variables."""
        del key
        return {LATENTS: self.encode(weights, images)[0]}

    def advance(self, weights: Arrays, latents: Arrays, layer: int) -> Any:
        if layer == 0:
            return {FEATURES: jax.nn.relu(_conv(weights, "decoder_0", latents[LATENTS]))}
        return {FEATURES: jax.nn.relu(_unfolded(_conv(weights, "decoder_1", latents[FEATURES])))}

    def images(self, weights: Arrays, latents: Arrays) -> Float[Array, "m h w c"]:
        x = jax.nn.relu(_conv(weights, "decoder_2", latents[FEATURES]))
        return 0.5 + _unfolded(_conv(weights, "decoder_3", x))

    def loss(
        self,
        weights: Arrays,
        key: Key[Array, ""],
        images: Float[Array, "m h w c"],
        variance: float,
    ) -> Float[Array, ""]:
        """Returns the negative evidence lower bound per pixel; `variance` is that of pixels."""
        mean, log_variance = self.encode(weights, images)
        noise = jax.random.normal(key, mean.shape)
        latents = {LATENTS: mean + jnp.exp(log_variance / 2) * noise}
        last = self.advanced(weights, latents, 0, self.num_layers - 1)
        error = ((self.images(weights, last) - images) ** 2).sum()
        divergence = (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum()
        return (error / variance + divergence) / (2 * images.size)


def _conv(weights, name, x):
    return conv(x, weights[f"{name}/kernel"], padding=1) + weights[f"{name}/bias"]


def _folded(x: Float[Array, "m h w c"]) -> Float[Array, "m y x d"]:
    """Makes channels of squares of 2 x 2 pixels."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // 2, width // 2, 4 * channels)


def _unfolded(x: Float[Array, "m y x d"]) -> Float[Array, "m h w c"]:
    """Inverts `_folded`."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, 2 * height, 2 * width, channels // 4)
