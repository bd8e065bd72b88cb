"""IDC (Kim et al., 2022, "multi-formation"): images as smaller ones, enlarged."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import idc
from gsdd_jax.parameterizations.base import Rate
from gsdd_jax.parameterizations.codes import Numbers


@dataclasses.dataclass(frozen=True)
class IDC(Numbers, idc.IDC):
    """factor² · IPC images per class (twice as many in bfloat16), by SGD with momentum 0.5.

    The published code stores the same numbers, factor x factor images in one of full size. Images
    are enlarged bilinearly: half-pixel centers, edges repeated. They are optimized in [0, 1] space
    and clipped to it before every step, as published.
    """

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit, and the learning rate of IDC's own objective.

        By DM and TM it is the best of four in short runs (docs/results.md).
        """
        rate = {"dm": 0.1, "tm": 1.0}.get(objective, 5e-3)
        return {"init.num_steps": 0, "distill.learning_rate": rate}

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns the first pixel of every square of factor x factor, as published."""
        return {"small": images[:, :: self.factor, :: self.factor]}

    def begin_step(self, params: dict[str, Array]) -> dict[str, Array]:
        return params | {"small": jnp.clip(params["small"], 0, 1)}

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=0.5)
