"""Images as smaller ones (IDC)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import resize
from gsdd_jax.formats.base import Format, dtype_field
from gsdd_jax.formats.codes import Numbers
from gsdd_jax.formats.shapes import Float


@dataclasses.dataclass(frozen=True)
class IDC(Numbers):
    """Images `factor` times smaller in both directions, enlarged bilinearly."""

    name: ClassVar[str] = "idc"
    takes_clips: ClassVar[bool] = True
    bits_each: ClassVar[float] = 4.0
    factor: int = field(2, "factor by which both sides are reduced; must divide them")
    dtype: str = dtype_field()

    def __post_init__(self):
        check_factor(self)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"small": (self.height // self.factor, self.width // self.factor, self.channels)}

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        images = resize(params["small"], self.height, self.width, "bilinear")
        return resize(images, height, width, resample)


def check_factor(of: Format) -> None:
    """Raises UsageError unless the format's field `factor` divides both sides of its images."""
    if of.height % of.factor or of.width % of.factor:
        raise UsageError(
            f"parameterization {of.name}: factor: expected a divisor of the height and the width, "
            f"{of.height} and {of.width}, got {of.factor}"
        )
