"""Images as pixels."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from gsdd_jax.formats.arrays import resize
from gsdd_jax.formats.base import dtype_field
from gsdd_jax.formats.codes import Numbers
from gsdd_jax.formats.shapes import Float


class Images(Numbers):
    """Base of formats whose parameters are the pixels."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"pixels": self.image_shape}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        return resize(params["pixels"], height, width, resample)


@dataclasses.dataclass(frozen=True)
class Pixels(Images):
    """Pixels, the field's baseline."""

    name: ClassVar[str] = "pixels"
    bits_each: ClassVar[float] = 2.0
    takes_clips: ClassVar[bool] = True
    dtype: str = dtype_field()
