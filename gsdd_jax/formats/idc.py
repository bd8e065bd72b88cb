"""Images as smaller ones (IDC)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats.named_arrays import NamedArrays
from gsdd_jax.formats.resize import resize
from gsdd_jax.formats.shapes import Float


@dataclasses.dataclass(frozen=True)
class IDC(NamedArrays):
    """Each is `factor` times smaller in both directions, and enlarged bilinearly."""

    name: ClassVar[str] = "idc"
    height: int
    width: int
    channels: int
    images_per_class: int
    factor: int = 2
    dtype: str = "float32"

    def __post_init__(self):
        if self.height % self.factor or self.width % self.factor:
            raise UsageError(
                f"parameterization idc: factor: expected a divisor of the height and the width, "
                f"{self.height} and {self.width}, got {self.factor}"
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"small": (self.height // self.factor, self.width // self.factor, self.channels)}

    def decode(
        self, opened: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        images = resize(opened["small"], self.height, self.width, "bilinear")
        return resize(images, height, width, resample)
