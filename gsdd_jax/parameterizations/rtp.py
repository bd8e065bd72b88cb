"""Remember the Past (Deng & Russakovsky, 2022): images as sums of bases that classes share."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gsdd_jax.formats import rtp
from gsdd_jax.formats.rtp import ADDRESSES, BASES
from gsdd_jax.parameterizations.base import Budget, Options, Shape
from gsdd_jax.parameterizations.sharing import Sharing

# Published at IPC 1 on CIFAR-10, whose bytes would hold 40 bases of half the size.
BASES_THERE, IMAGES_THERE, ROOM_THERE = 16, 115, 40
POWER = 2 / 3  # of the room, chosen here


@dataclasses.dataclass(frozen=True)
class RTP(Sharing, rtp.RTP):
    """Bases and an address per image (115 per class on CIFAR-10 at IPC 1), both by Adam.

    The file holds the bases once, and the budget counts them. They begin as principal components of
    the real images.

    The published code learns both by back-propagation through the training of a network, by SGD at
    0.1 with momentum 0.5 from random values, and penalizes the addresses' norm.
    """

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the published bases at IPC 1 on CIFAR-10, elsewhere a power of the budget.

        More where images would be many: 115 · √IPC per class at most.
        """
        factor, classes = options.get("factor", cls.factor), budget.num_classes
        size = max(1, math.prod(image_shape) // factor**2)  # numbers of a base
        room = classes * budget.bytes_per_class // 4
        few = BASES_THERE * (room / size / ROOM_THERE) ** POWER
        least = room / (size + classes * IMAGES_THERE * budget.ipc(image_shape) ** 0.5)
        most = min(size, room // (size + classes), rtp.MOST_BASES)
        return {"bases": max(1, min(round(max(few, least)), most))}

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns the best bases and addresses of the images in the bases' size.

        Bases have a mean square of 1. Where there are fewer images than bases, the others are
        random and unused.
        """
        shape = self.shared_shapes()[BASES]
        _, rows, columns, channels = shape
        split = images.reshape(-1, rows, self.factor, columns, self.factor, channels)
        flat = split.mean((2, 4)).reshape(len(images), -1)
        left, values, right = jnp.linalg.svd(flat, full_matrices=False)
        scale, count = math.sqrt(flat.shape[1]), min(self.bases, len(values))
        addresses = left[:, :count] * (values[:count] / scale)
        unused = self.bases - count
        more = jax.random.normal(key, (unused, flat.shape[1]))
        return {
            ADDRESSES: jnp.pad(addresses, ((0, 0), (0, unused))),
            BASES: jnp.concatenate([scale * right[:count], more]).reshape(shape),
        }
