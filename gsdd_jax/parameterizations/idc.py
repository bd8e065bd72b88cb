"""IDC (Kim et al., 2022, "multi-formation"): images as smaller ones, enlarged."""

import dataclasses
from typing import Any

import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import idc
from gsdd_jax.parameterizations.base import Parameterization, Rate


@dataclasses.dataclass(frozen=True)
class IDC(Parameterization, idc.IDC):
    """factor² · IPC images per class (twice as many in bfloat16), by SGD with momentum 0.5.

    The published code stores the same numbers, factor x factor images in one of full size. Images
    are enlarged bilinearly: half-pixel centers, edges repeated. Optimization is in [0, 1] space,
    because a file must render without the data set's whitening matrix.
    """

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit, and the learning rate of IDC's own objective."""
        return {"init.num_steps": 0, "distill.learning_rate": 5e-3}

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns the images averaged over squares of factor x factor pixels, as published."""
        height, width, channels = self.shapes()["small"]
        squares = images.reshape(-1, height, self.factor, width, self.factor, channels)
        return {"small": squares.mean((2, 4))}

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=0.5)
