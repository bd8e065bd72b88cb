"""What the parameterizations share whose parameters are float arrays by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import named_arrays as stored
from gsdd_jax.parameterizations.base import Budget, Parameterization
from gsdd_jax.rasterizer.gaussians import budget_bytes, round_to_bfloat16


class NamedArrays(Parameterization, stored.NamedArrays):
    """Arrays that are optimised in float32 and stored as `dtype`.

    "float32" is as published. "bfloat16" stores twice as many images in the same bytes; whatever
    renders the parameters rounds them first, gradients straight through.
    """

    @classmethod
    def published(cls, image_shape: tuple[int, int, int], ipc: int) -> dict[str, Any]:
        """The options that have no default, for images of that shape and that budget."""
        del image_shape, ipc
        return {}

    @classmethod
    def within(
        cls, image_shape: tuple[int, int, int], budget: Budget, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """As many images a class as fit."""
        fields = cls.published(image_shape, budget.ipc)
        one = cls(*image_shape, images_per_class=1, **fields | dict(options))
        itemsize = jnp.dtype(one.dtype).itemsize
        bytes_each = itemsize * sum(math.prod(shape) for shape in one.shapes().values())
        there = budget_bytes(budget.ipc, image_shape)
        if there < bytes_each:
            raise UsageError(
                f"budget: one image of {cls.name} takes {bytes_each} bytes, expected at most the "
                f"{there} bytes a class of ipc={budget.ipc}"
            )
        return fields | {"images_per_class": there // bytes_each}

    def rounded(self, params: dict[str, Array]) -> dict[str, Array]:
        """The parameters as they would be stored."""
        if self.dtype == "float32":
            return params
        return params | {name: round_to_bfloat16(params[name]) for name in self.shapes()}

    def to_arrays(self, params: dict[str, Array]) -> dict[str, Array]:
        return {name: params[name].astype(self.dtype) for name in self.shapes()}

    def from_arrays(self, arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: jnp.asarray(arrays[name]).astype(jnp.float32) for name in self.shapes()}
