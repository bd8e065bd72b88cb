"""Images as small networks from coordinates to colors (DDiF)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsdd_jax.core.fields import field
from gsdd_jax.formats.arrays import matmul, namespace
from gsdd_jax.formats.base import Format, dtype_field
from gsdd_jax.formats.shapes import Float

FIRST_W0 = 30.0  # frequency of the first layer's sines


@dataclasses.dataclass(frozen=True)
class DDiF(Format):
    """Layers of sines, sin(30 (W x + b)) first, then sin(w0 (W x + b)), and a linear last layer.

    Coordinates (row, column) are -1 and 1 at the corner pixels' centers.
    """

    name: ClassVar[str] = "ddif"
    layers: int = field(..., "layers of sines; published: 2 on CIFAR, 3 at 128 x 128", most=16)
    layer_width: int = field(..., "sines per layer; published: 6 to 40", most=1024)
    w0: float = field(..., "frequency of the sines after the first layer; published: 10, 40", 1)
    dtype: str = dtype_field()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        sides = [2, *[self.layer_width] * self.layers, self.channels]
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.layers + 1):
            shapes[f"weights_{i}"] = sides[i], sides[i + 1]
            shapes[f"biases_{i}"] = (sides[i + 1],)
        return shapes

    def decode(
        self, params: Mapping[str, Any], height: int, width: int, resample: str = "bilinear"
    ) -> Float[Any, "m {height} {width} c"]:
        """Evaluates the networks at pixel centers; corners are at -1 and 1 for any size."""
        xp, points = namespace(params["biases_0"]), grid(height, width)
        count = len(params["biases_0"])
        if xp is np and count > 1:  # one by one, to save memory
            each = [{n: a[i : i + 1] for n, a in params.items()} for i in range(count)]
            return np.concatenate([self.decode(one, height, width, resample) for one in each])
        x = xp.broadcast_to(points, (count, *points.shape))
        for i in range(self.layers + 1):
            # Exact products: the sine multiplies their error by 30.
            x = matmul(params[f"weights_{i}"].swapaxes(1, 2), x) + params[f"biases_{i}"][..., None]
            if i < self.layers:
                x = xp.sin((self.w0 if i else FIRST_W0) * x)
        return x.transpose(0, 2, 1).reshape(-1, height, width, self.channels)

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes of a layer before and after its sines, for one image."""
        return 3 * 4 * max(2, self.layer_width) * height * width


def grid(height: int, width: int) -> Float[np.ndarray, "2 points"]:
    """Returns coordinates of all pixels, row by row; points last, as the long axis of products."""
    rows, columns = _coordinates(height), _coordinates(width)
    return np.stack(np.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)


def _coordinates(count: int) -> Float[np.ndarray, "{count}"]:
    """Returns coordinates from -1 to 1, or 0 for one pixel."""
    return np.linspace(-1, 1, count, dtype=np.float32) if count > 1 else np.zeros(1, np.float32)
