"""Parameterizations whose images share learned arrays."""

from typing import Any

import numpy as np
import optax
from jaxtyping import Array

from gsdd_jax.formats.pairs import PAIRS, Paired
from gsdd_jax.parameterizations.base import Options, Parameterization, Rate


class Sharing(Parameterization):
    """Base of parameterizations that learn `shared_shapes` in every step, by Adam.

    Any objective learns them, whose gradients may be of any size; Adam's steps are not.
    """

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit, and a rate chosen here."""
        return cls.unfitted(objective, 3e-3)

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.adam(learning_rate)


class Pairing(Sharing, Paired):
    """Base of parameterizations of formats that are `formats.pairs.Paired`."""

    @classmethod
    def together(cls, options: Options) -> int:
        """Returns the images of a row, which every partner shows."""
        return options[cls.partner]

    def to_arrays(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns what is shared, and the rows of the images that `params` has."""
        arrays = super().to_arrays(params)
        of_class = params[PAIRS].reshape(-1, self.images_per_class, 2)
        used = of_class[:, :: self.partners, 0].ravel().astype(np.int32)
        return arrays | {self.held: arrays[self.held][used]}
