"""Images as pixels."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from gsdd_jax.formats.arrays import resize
from gsdd_jax.formats.base import Format, dtype_field
from gsdd_jax.formats.shapes import Float


@dataclasses.dataclass(frozen=True)
class Pixels(Format):
    """Pixels, the field's baseline."""

    name: ClassVar[str] = "pixels"
    dtype: str = dtype_field()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"pixels": self.image_shape}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        return resize(params["pixels"], height, width, resample)
