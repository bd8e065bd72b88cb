"""Images as their pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.formats.named_arrays import NamedArrays
from gsdd_jax.formats.resize import resize
from gsdd_jax.formats.shapes import Float


@dataclasses.dataclass(frozen=True)
class Pixels(NamedArrays):
    """The field's baseline."""

    name: ClassVar[str] = "pixels"
    later: ClassVar[dict[str, Any]] = {"dtype": "float32"}
    height: int
    width: int
    channels: int
    images_per_class: int
    dtype: str = "float32"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"pixels": self.image_shape}

    def decode(
        self, opened: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        return resize(opened["pixels"], height, width, resample)
