"""GLaD (Cazenavette et al., 2023): images as latents of a pretrained generator."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from gsdd_jax import generators
from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import resize
from gsdd_jax.formats.base import PLAIN, Format, dtype_field
from gsdd_jax.parameterizations.base import Budget, Options, Parameterization, Params, Rate, Shape

WEIGHT = "weights/"  # before the name of a weight among the parameters
FIXED = "fixed"
AT_ONCE = 128  # images that are rendered outside of a program


@dataclasses.dataclass(frozen=True)
class Latents(Parameterization):
    """Latents at a layer of a generator, as many images per class as the budget holds, by Adam.

    A file holds the latents and the SHA-256 of the generator's weights, which a reader needs. The
    budget counts the latents; a run states the bytes of the weights.

    A run that begins with a set of an earlier layer (`config.init.set`) goes on at its own layer,
    as H-GLaD does from layer to layer.

    In the published code SGD with momentum 0.5 learns random latents, and features clipped to
    [-10, 10], of StyleGAN-XL.
    """

    name: ClassVar[str] = "generator"
    needs_file: ClassVar[bool] = True
    weights: str = field(
        ..., "SHA-256 of a generator's weights; default: of the one file in GSDD_GENERATORS"
    )
    layer: int = field(0, "layer of the generator that the latents are inputs of", 0)
    dtype: str = dtype_field(PLAIN)

    def __post_init__(self):
        trained = generators.find(self.weights)
        generator, got = trained.generator, self.image_shape
        if got != generator.image_shape:
            height, width, channels = generator.image_shape
            raise UsageError(
                f"parameterization generator: expected images of {height} x {width} x {channels}, "
                f"as {generator.name} has, got {' x '.join(map(str, got))}"
            )
        if self.layer >= generator.num_layers:
            raise UsageError(
                f"parameterization generator: layer: expected 0 to {generator.num_layers - 1}, got "
                f"{self.layer}"
            )

    @property
    def trained(self) -> generators.Trained:
        return generators.find(self.weights)

    @property
    def made_of(self) -> str:
        return self.weights

    @property
    def besides(self) -> tuple[str, ...]:
        kind, _, sha256, size = self.trained
        return (f"{size:,} bytes: the weights of {kind.name}, SHA-256 {sha256}",)

    @property
    def described(self) -> str:
        kind, _, _, size = self.trained
        return f"latents at layer {self.layer} of {kind.name} ({size:,} bytes, not counted)"

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit, and a rate chosen here."""
        return cls.unfitted(objective, 1e-2)

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the weights that `GSDD_GENERATORS` names, unless an option does."""
        del image_shape, budget
        return {} if "weights" in options else {"weights": generators.only().sha256}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.trained.generator.latent_shapes(self.layer)

    def is_shared(self, name: str) -> bool:
        return name.startswith(WEIGHT)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Params:
        """Returns latents of the images, or random ones of a generator without an encoder."""
        generator, weights = self.trained.generator, self._weights()
        latents = generator.begin(weights, key, images)
        return generator.advanced(weights, latents, 0, self.layer) | _named(weights)

    def differs(self, kind: Format) -> frozenset[str]:
        earlier = kind.name == self.name and kind.layer < self.layer
        return frozenset({"layer"} if earlier else {})

    def continued(self, kind: Format, params: Params) -> Params:
        """Returns the latents at this layer of a set that stores those at an earlier one."""
        generator, weights = self.trained.generator, self._weights()
        latents = {name: params[name] for name in kind.shapes()}
        advance = jax.jit(lambda *given: generator.advanced(*given, kind.layer, self.layer))
        return advance(weights, latents) | _named(weights)

    def _weights(self) -> dict[str, Array]:
        return {name: jnp.asarray(array) for name, array in self.trained.weights.items()}

    def unpack(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the latents, and the weights of the generator."""
        return dict(arrays) | _named(self.trained.weights)

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        generator = self.trained.generator
        weights = {
            name.removeprefix(WEIGHT): jax.lax.stop_gradient(a)
            for name, a in params.items()
            if self.is_shared(name)
        }
        latents = {name: params[name] for name in self.shapes()}
        last = generator.advanced(weights, latents, self.layer, generator.num_layers - 1)
        return resize(generator.images(weights, last), height, width, resample)

    def rendered(
        self, params: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        shared = {name: a for name, a in params.items() if self.is_shared(name)}
        latents = {name: params[name] for name in self.shapes()}
        count, how = len(next(iter(latents.values()))), (height, width, resample)
        parts = [
            shared | {name: a[first : first + AT_ONCE] for name, a in latents.items()}
            for first in range(0, count, AT_ONCE)
        ]
        return np.concatenate([np.asarray(_decoded(self, part, *how)) for part in parts])

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of the largest layer for all images, before and after it."""
        generator = self.trained.generator
        layers = [generator.latent_shapes(layer) for layer in range(generator.num_layers)]
        sizes = [sum(map(math.prod, shapes.values())) for shapes in layers]
        return 2 * 4 * num_images * max(*sizes, math.prod(self.image_shape))

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        generator = self.trained.generator
        by_name = {n: optax.adam(generator.rate(n) * learning_rate) for n in self.shapes()}
        return optax.multi_transform(
            by_name | {FIXED: optax.set_to_zero()},
            lambda params: {n: FIXED if self.is_shared(n) else n for n in params},
        )

    def report(self, params: Params) -> dict[str, Any]:
        """Returns the generator and the bytes of its weights, which the budget does not count."""
        kind, _, sha256, size = self.trained
        return {"generator": kind.name, "generator_sha256": sha256, "generator_bytes": size}


@functools.partial(jax.jit, static_argnums=(0, 2, 3, 4))
def _decoded(kind: Latents, params: Params, height: int, width: int, resample: str) -> Array:
    return kind.decode(params, height, width, resample)


def _named(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns weights by their names among the parameters."""
    return {WEIGHT + name: array for name, array in weights.items()}
