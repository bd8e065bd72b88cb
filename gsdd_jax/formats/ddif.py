"""Images and clips as small networks from coordinates to colors (DDiF)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import matmul, namespace
from gsdd_jax.formats.base import dtype_field
from gsdd_jax.formats.clips import folded
from gsdd_jax.formats.codes import Numbers
from gsdd_jax.formats.shapes import Float, Int
from gsdd_jax.formats.transforms import CIFAR10, IMAGENET

FIRST_W0 = 30.0  # frequency of the first layer's sines
MOST_RADIANS = 1e5  # argument of a sine: beyond, float32 tells few phases apart
LAST = 0.1  # unit of the last layer in codes: measured


@dataclasses.dataclass(frozen=True)
class DDiF(Numbers):
    """Layers of sines, sin(30 (W x + b)) first, then sin(w0 (W x + b)), and a linear last layer.

    Coordinates (row, column), of clips (frame, row, column), are -1 and 1 at the corner pixels'
    centers, and at the first and the last frame. Outputs are images in [0, 1], or images normalized
    by the statistics of CIFAR-10 (up to 64 pixels per side) or ImageNet.
    """

    name: ClassVar[str] = "ddif"
    bits_each: ClassVar[float] = 6.0
    has_colors: ClassVar[bool] = False
    takes_clips: ClassVar[bool] = True
    since: ClassVar[dict[str, Any]] = {"space": "unit"}
    layers: int = field(..., "layers of sines; published: 2 on CIFAR, 3 at 128 x 128", most=16)
    layer_width: int = field(..., "sines per layer; published: 6 to 40", most=1024)
    w0: float = field(..., "frequency of the sines after the first layer; published: 10, 40", 1)
    dtype: str = dtype_field()
    space: str = field(
        "unit",
        "outputs: unit (images in [0, 1]) or normalized (per channel, as published)",
        choices=("unit", "normalized"),
    )

    def __post_init__(self):
        if self.space == "normalized" and self.colors != 3:
            raise UsageError(
                f"parameterization ddif: space: expected unit for images of {self.colors} "
                f"channels, got {self.space!r}"
            )

    @property
    def coordinates(self) -> int:
        """Coordinates of a point."""
        return 3 if self.frames > 1 else 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        sides = [self.coordinates, *[self.layer_width] * self.layers, self.colors]
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.layers + 1):
            shapes[f"weights_{i}"] = sides[i], sides[i + 1]
            shapes[f"biases_{i}"] = (sides[i + 1],)
        return shapes

    @property
    def num_columns(self) -> int:
        return len(self.shapes())

    def columns(self, params: Mapping[str, Any]) -> Int[np.ndarray, "1 n"]:
        """Returns a column for each array."""
        del params
        sizes = [math.prod(shape) for shape in self.shapes().values()]
        return np.repeat(np.arange(len(sizes)), sizes)[None]

    def unit(self, name: str) -> float:
        """Returns the change that moves a sine by 1, and a smaller one in the last layer."""
        layer = int(name.rpartition("_")[2])
        return LAST if layer == self.layers else 1 / (self.w0 if layer else FIRST_W0)

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        """Evaluates the networks at pixel centers; corners are at -1 and 1 for any size."""
        xp, points = namespace(params["biases_0"]), grid(height, width, self.frames)
        count = len(params["biases_0"])
        x = xp.broadcast_to(points, (count, *points.shape))
        for i in range(self.layers + 1):
            # Exact products: the sine multiplies their error by 30.
            x = matmul(params[f"weights_{i}"].swapaxes(1, 2), x) + params[f"biases_{i}"][..., None]
            if i < self.layers:
                x = (self.w0 if i else FIRST_W0) * x
                x = self.sines(x.clip(-MOST_RADIANS, MOST_RADIANS))
        x = x.transpose(0, 2, 1).reshape(-1, self.frames, height, width, self.colors)
        if self.space == "normalized":
            statistics = CIFAR10 if max(self.height, self.width) <= 64 else IMAGENET
            mean, std = np.array(statistics, np.float32)
            x = x * std + mean
        return folded(x)

    def sines(self, x: Float[Any, "m d points"]) -> Float[Any, "m d points"]:
        return namespace(x).sin(x)

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of a layer before and after its sines, for one image."""
        return 3 * 4 * max(self.coordinates, self.layer_width) * self.frames * height * width


def grid(height: int, width: int, frames: int = 1) -> Float[np.ndarray, "d points"]:
    """Returns coordinates of all pixels, row by row; points last, as the long axis of products."""
    axes = [_coordinates(count) for count in (frames, height, width)]
    if frames == 1:
        del axes[0]
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(len(axes), -1)


def _coordinates(count: int) -> Float[np.ndarray, "{count}"]:
    """Returns coordinates from -1 to 1, or 0 for one pixel."""
    return np.linspace(-1, 1, count, dtype=np.float32) if count > 1 else np.zeros(1, np.float32)
