"""Pixels, the field's baseline ("vanilla" in Table 2)."""

import dataclasses
from typing import Any, ClassVar

import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import pixels
from gsdd_jax.parameterizations.base import Parameterization, Rate, Transform
from gsdd_jax.parameterizations.codes import Numbers


class Images(Parameterization):
    """Pixels, optimized by SGD with momentum 0.5.

    Images are optimized as networks see them, normalized or whitened, as the published learning
    rates assume, but stored as pixels. Therefore they are rounded only at the end.
    """

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit, and the rate of SGD that the objective's own code has.

        For TM those of MTT at IPC 1 on whitened images. Of the rates 3 to 3000, that for FRePo
        lowered the loss the most in 60 steps of the demo.
        """
        rates = {"dm": 1.0, "dc": 0.1, "tm": 100.0, "frepo": 3000.0}
        known = {name: {"distill.learning_rate": rate} for name, rate in rates.items()}
        known["tm"] |= {"matching.options.lr_init": 0.01, "matching.options.lr_lr": 1e-7}
        return {"init.num_steps": 0} | known.get(objective, {})

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        return {"pixels": images}

    def to_optimized(self, params: dict[str, Array], transform: Transform) -> dict[str, Array]:
        return params | {"pixels": transform(params["pixels"])}

    def from_optimized(self, params: dict[str, Array], transform: Transform) -> dict[str, Array]:
        return params | {"pixels": transform.inverse(params["pixels"])}

    def to_network(self, params: dict[str, Array], transform: Transform) -> Float[Array, "m h w c"]:
        return params["pixels"]

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=0.5)


@dataclasses.dataclass(frozen=True)
class Pixels(Numbers, Images, pixels.Pixels):
    """IPC images per class, or twice as many in bfloat16."""

    rounded_late: ClassVar[bool] = True
    reserves: ClassVar[bool] = True
