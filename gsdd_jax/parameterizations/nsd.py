"""NSD (Yang et al., 2024, neural spectral decomposition): spectrum tensors by shared kernels."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import nsd
from gsdd_jax.formats.nsd import COLORS, COLUMNS, ROWS, TENSORS
from gsdd_jax.formats.pairs import PAIRS
from gsdd_jax.parameterizations.base import Budget, Options, Shape
from gsdd_jax.parameterizations.sharing import Pairing

# Chosen here: rank by the channels of all images of a tensor, about; sixteenths of the image's
# sides at low and high IPC; and most kernels at IPC 1, which grow as the root of IPC.
LOW, SIXTEENTHS, MOST_KERNELS = 0.25, (3, 6), 65


@dataclasses.dataclass(frozen=True)
class NSD(Pairing, nsd.NSD):
    """Spectrum tensors and kernels, both by Adam; every tensor is shown by every kernel.

    The budget counts both. Products and pairs follow the abstract; it states no sizes, start or
    rates, which are chosen here.

    The start is a Tucker decomposition of real images. Kernels begin with the same rows and
    columns, and colors of their own.
    """

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns sizes chosen here, which leave room for about one tensor per class.

        A tensor has 3/16 of the pixels per side, or 6/16 from IPC 10 on. Its rank takes what the
        kernels leave.
        """
        height, width, channels = image_shape
        classes, itemsize = budget.num_classes, 2 if options.get("dtype") == "bfloat16" else 4
        room = classes * budget.bytes_per_class // itemsize
        part = SIXTEENTHS[budget.ipc(image_shape) >= 10]
        size = options.get("size", -(-min(height, width) * part // 16))
        matrices, pixels = (height + width) * size, classes * size**2
        each = matrices + channels * (LOW * pixels + 1)
        most = MOST_KERNELS * math.sqrt(room / (classes * math.prod(image_shape)))
        kernels = options.get("kernels", max(1, min(int(room / each), int(most), nsd.MOST)))
        rank = (room - kernels * matrices) // (pixels + kernels * channels)
        rank = max(1, min(rank, kernels * channels, nsd.MOST))
        return {"kernels": kernels, "rank": rank, "size": size}

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns a Tucker decomposition of the images: matrices have orthonormal columns.

        Where there are fewer images than pairs, a tensor's first image stands for the others.
        Channels beyond the images' own begin unused, with random colors.
        """
        pairs = self.pairs(len(images))
        tensor, kernel = pairs.astype(np.int32).T
        first = np.unique(tensor, return_index=True)[1]
        places = np.repeat(first[:, None], self.kernels, 1)
        places[tensor, kernel] = np.arange(len(images))
        real = images[places]  # tensor, kernel, row, column, color
        rows, columns = (_leading(real, axis, self.size) for axis in (2, 3))
        small = jnp.einsum("tkhwc,hy,wx->kctyx", real, rows, columns, precision="highest")
        flat = small.reshape(self.kernels * self.channels, -1)
        left, values, right = jnp.linalg.svd(flat, full_matrices=False)
        count = min(self.rank, len(values))
        unused = self.rank - count
        more = jax.random.normal(key, (len(flat), unused)) / np.sqrt(len(flat))
        colors = jnp.concatenate([left[:, :count], more], 1)
        tensors = jnp.pad(right[:count].T * values[:count], ((0, 0), (0, unused)))
        return {
            TENSORS: tensors.reshape(len(first), self.size, self.size, self.rank),
            ROWS: jnp.tile(rows, (self.kernels, 1, 1)),
            COLUMNS: jnp.tile(columns, (self.kernels, 1, 1)),
            COLORS: colors.reshape(self.kernels, self.channels, self.rank),
            PAIRS: jnp.asarray(pairs),
        }

    def working_bytes(self, num_images: int, height: int, width: int) -> int:
        """Returns the bytes for all images at once."""
        more = (num_images - 1) * self.bytes_of_copies
        return super().working_bytes(num_images, height, width) + more


def _leading(
    images: Float[Array, "t k h w c"], axis: int, count: int
) -> Float[Array, "side {count}"]:
    """Returns the leading left singular vectors of the images' lines along an axis."""
    lines = jnp.moveaxis(images, axis, 0).reshape(images.shape[axis], -1)
    products = jnp.matmul(lines, lines.T, precision="highest")
    return jnp.linalg.eigh(products)[1][:, ::-1][:, :count]
