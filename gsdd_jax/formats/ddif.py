"""Images as small networks from coordinates to colours (DDiF)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from gsdd_jax.core.options import Limits
from gsdd_jax.formats.named_arrays import NamedArrays
from gsdd_jax.formats.shapes import Float

FIRST_W0 = 30.0  # of the first layer


@dataclasses.dataclass(frozen=True)
class DDiF(NamedArrays):
    """`layers` layers of `layer_width` sines, sin(30 (W x + b)) first and sin(w0 (W x + b)) after
    it, and a last one without. Coordinates (row, column) are -1 and 1 at the corner pixels'
    centres."""

    name: ClassVar[str] = "ddif"
    limits: ClassVar[Limits] = NamedArrays.limits | {
        "layers": (1, 16),
        "layer_width": (1, 1024),
        "w0": (1, None),
    }
    height: int
    width: int
    channels: int
    images_per_class: int
    layers: int
    layer_width: int
    w0: float
    dtype: str = "float32"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        sides = [2, *[self.layer_width] * self.layers, self.channels]
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.layers + 1):
            shapes[f"weights_{i}"] = sides[i], sides[i + 1]
            shapes[f"biases_{i}"] = (sides[i + 1],)
        return shapes

    def decode(
        self, opened: Mapping[str, np.ndarray], height: int, width: int, resample: str
    ) -> Float[np.ndarray, "m {height} {width} c"]:
        """The networks at other coordinates; their corners stay at -1 and 1."""
        del resample
        points = grid(height, width)
        images = np.empty((len(opened["biases_0"]), height, width, self.channels), np.float32)
        for m, image in enumerate(images):
            x = points
            for i in range(self.layers + 1):
                x = opened[f"weights_{i}"][m].T @ x + opened[f"biases_{i}"][m][:, None]
                if i < self.layers:
                    x = np.sin((self.w0 if i else FIRST_W0) * x)
            image[...] = x.T.reshape(height, width, self.channels)
        return images


def grid(height: int, width: int) -> Float[np.ndarray, "2 points"]:
    """Coordinates of all pixels, row by row; points last: the long axis of every product."""
    rows, columns = _coordinates(height), _coordinates(width)
    return np.stack(np.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)


def _coordinates(count: int) -> Float[np.ndarray, "{count}"]:
    """From -1 to 1; along an axis of one pixel 0."""
    return np.linspace(-1, 1, count, dtype=np.float32) if count > 1 else np.zeros(1, np.float32)
