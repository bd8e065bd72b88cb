"""The field's baseline: every image is its own float32 pixels ("vanilla" in Table 2)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.parameterizations.base import Parameterization, Transform


@dataclasses.dataclass(frozen=True)
class Pixels(Parameterization):
    """IPC images a class, optimised by SGD with momentum 0.5.

    They are optimised as networks see them, normalised or whitened, for which the published
    learning rates are meant, and stored as pixels all the same.
    """

    name: ClassVar[str] = "pixels"
    height: int
    width: int
    channels: int
    images_per_class: int

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """The images themselves: nothing is left to fit."""
        del key
        return {"pixels": images}

    def render(self, params: dict[str, Array]) -> Float[Array, "m h w c"]:
        return params["pixels"]

    def enter(self, params: dict[str, Array], transform: Transform) -> dict[str, Array]:
        return {"pixels": transform(params["pixels"])}

    def leave(self, params: dict[str, Array], transform: Transform) -> dict[str, Array]:
        return {"pixels": transform.inverse(params["pixels"])}

    def to_network(self, params: dict[str, Array], transform: Transform) -> Float[Array, "m h w c"]:
        del transform
        return params["pixels"]

    def optimizer(self, learning_rate: float) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=0.5)

    def array_specs(self, num_images: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {"pixels": jax.ShapeDtypeStruct((num_images, *self.image_shape), jnp.float32)}

    def to_arrays(self, params: dict[str, Array]) -> dict[str, Array]:
        return {"pixels": params["pixels"].astype(jnp.float32)}

    def from_arrays(self, arrays: dict[str, Array]) -> dict[str, Array]:
        return {"pixels": jnp.asarray(arrays["pixels"], jnp.float32)}
