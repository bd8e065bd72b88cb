"""What those share whose file holds float arrays by name, the images of a set one after another."""

from __future__ import annotations

import abc
from typing import ClassVar

from gsdd_jax.core.options import Limits
from gsdd_jax.formats.base import Spec, Stored


class NamedArrays(Stored):
    """Arrays that are stored as `dtype`."""

    limits: ClassVar[Limits] = Stored.limits | {"dtype": ("float32", "bfloat16")}
    dtype: str

    @abc.abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one image's arrays, by name."""

    def array_specs(self, num_images: int) -> dict[str, Spec]:
        return {n: Spec((num_images, *shape), self.dtype) for n, shape in self.shapes().items()}
