"""DDiF (Shin et al., 2025): images as small networks from coordinates to colors (SIREN)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import ddif
from gsdd_jax.formats.arrays import namespace
from gsdd_jax.ops.sine import sine
from gsdd_jax.parameterizations.base import Budget, Options, Rate, Shape
from gsdd_jax.parameterizations.codes import Numbers


@dataclasses.dataclass(frozen=True)
class DDiF(Numbers, ddif.DDiF):
    """Networks, as many per class as the budget holds (37 on CIFAR at IPC 1), trained by Adam.

    Published widths at IPC 1 / 10 / 50: 6 / 6 / 20 on CIFAR-10, 10 / 15 / 30 on CIFAR-100 (2
    layers, w0 = 10); 20 / 20 / 40 at 128 x 128 (3 layers, w0 = 40). Default: those of CIFAR up to
    64 pixels per side, by the number of classes, else of 128 x 128.

    Outputs are in [0, 1] space, or normalized (`space`) as in the published code. There they are
    whitened where the data set is, which a file cannot hold: it must render without the matrix.
    Fits take 5000 steps at 5e-4.
    """

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns Adam's rates; none is halved. DM updates all classes at once."""
        by_dm = {"distill.learning_rate": 5e-5, "matching.options.per_class_updates": False}
        return {
            "init.num_steps": 5000,
            "init.learning_rate": 5e-4,
            "init.halve_means_every": 0,
            "distill.learning_rate": 1e-4,
        } | (by_dm if objective == "dm" else {})

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the settings of CIFAR up to 64 pixels per side, of 128 x 128 above."""
        del options
        ipc = budget.ipc(image_shape)
        if max(image_shape[:2]) > 64:
            return {"layers": 3, "layer_width": 40 if ipc >= 50 else 20, "w0": 40.0}
        widths = (10, 15, 30) if budget.num_classes >= 100 else (6, 6, 20)
        return {"layers": 2, "layer_width": widths[(ipc >= 10) + (ipc >= 50)], "w0": 10.0}

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns random networks; `images` gives only their number."""
        params = {}
        for i, (name, shape) in enumerate(self.shapes().items()):
            fan_in = (
                self.coordinates if i < 2 else self.layer_width
            )  # a weight and its bias have the same bound
            bound = 1 / fan_in if i < 2 else np.sqrt(6 / fan_in) / self.w0
            params[name] = jax.random.uniform(
                jax.random.fold_in(key, i), (len(images), *shape), jnp.float32, -bound, bound
            )
        return params

    def sines(self, x: Float[Any, "m d points"]) -> Float[Any, "m d points"]:
        return np.sin(x) if namespace(x) is np else sine(x)

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes for all images at once."""
        return num_images * super().working_bytes(num_images, height, width)

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.adam(learning_rate)
