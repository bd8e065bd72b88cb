"""Parameterizations whose images share learned arrays."""

from typing import Any

import optax

from gsdd_jax.parameterizations.base import Parameterization, Rate


class Sharing(Parameterization):
    """Base of parameterizations that learn `shared_shapes` in every step, by Adam.

    Any objective learns them, whose gradients may be of any size; Adam's steps are not.
    """

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit, and a rate chosen here. DM updates all classes at once."""
        by_dm = {"matching.options.per_class_updates": False} if objective == "dm" else {}
        return {"init.num_steps": 0, "distill.learning_rate": 3e-3} | by_dm

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.adam(learning_rate)
