"""FreD (Shin et al., 2023): every image is some coefficients of its cosine transform."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import fred
from gsdd_jax.formats.arrays import sides
from gsdd_jax.formats.fred import MASKS, cosines, mask_bytes
from gsdd_jax.parameterizations.base import Budget, Parameterization, Rate
from gsdd_jax.rasterizer.gaussians import budget_bytes


@dataclasses.dataclass(frozen=True)
class FreD(Parameterization, fred.FreD):
    """IPC · H · W / size images a class (twice as many in bfloat16), by SGD with momentum 0.5.

    Every channel is an orthonormal two-dimensional DCT-II of which `num_frequencies` coefficients
    are kept: those that vary most over the images of the class that the set starts from. They are
    the same for all images and channels of a class, and the budget pays for them: one bit for each
    frequency and class. The published budget does not, so that of its `size` numbers a channel a
    few are missing here (63 of 64 at 32 x 32).

    Coefficients are of images in [0, 1] space, because a file must render without the data set's
    whitening matrix (the published code has those of whitened images on CIFAR).
    """

    derived: ClassVar[frozenset[str]] = Parameterization.derived | {"num_frequencies"}

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """No fit: truncating real images' coefficients is the best one."""
        del objective
        return {"init.num_steps": 0}

    @classmethod
    def published(cls, image_shape: tuple[int, int, int], ipc: int) -> dict[str, Any]:
        """The power of the image's area that meets both published sizes at IPC 1."""
        del ipc
        height, width, _ = image_shape
        return {"size": max(1, round(64 * (height * width / 32**2) ** 1.25))}

    @classmethod
    def within(
        cls, image_shape: tuple[int, int, int], budget: Budget, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Images by `size`, then as many frequencies as fit beside the masks."""
        ipc = budget.ipc
        height, width, channels = image_shape
        fields = cls.published(image_shape, ipc)
        size = options.get("size", fields["size"])
        itemsize = jnp.dtype(options.get("dtype", cls.dtype)).itemsize
        images = ipc * height * width // size * (4 // itemsize)
        left = budget_bytes(ipc, image_shape) - mask_bytes(height, width)
        count = left // (images * channels * itemsize) if images else 0
        if count < 1:
            raise UsageError(
                f"parameterization fred: size: expected from 2 to {ipc * height * width} numbers a "
                f"channel, for the bytes of ipc={ipc}, got {size}"
            )
        frequencies = min(count, height * width)
        return fields | {"images_per_class": images, "num_frequencies": frequencies}

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """The images' own coefficients: of all that the mask allows, already the best fit.

        `images` are ordered by class, `images_per_class` of each.
        """
        del key
        spectrum = sides(
            cosines(self.height, self.height, self.height).T,
            images,
            cosines(self.width, self.width, self.width).T,
        ).reshape(len(images), -1, self.channels)
        of_class = spectrum.reshape(-1, self.images_per_class, *spectrum.shape[1:])
        # A single image has no variance; its largest coefficients take that place.
        spread = of_class.var(1) if self.images_per_class > 1 else of_class[:, 0] ** 2
        _, kept = jax.lax.top_k(spread.mean(-1), self.num_frequencies)
        kept = jnp.repeat(jnp.sort(kept, axis=-1), self.images_per_class, axis=0)
        return {
            "coefficients": jnp.take_along_axis(spectrum, kept[..., None], axis=1),
            # Not learned: `decode` makes integers of them, so that their gradient is 0 and every
            # optimizer leaves them. float32 holds those up to 4096² exactly.
            "frequencies": kept.astype(jnp.float32),
        }

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=0.5)

    def to_arrays(self, params: dict[str, Array]) -> dict[str, Array]:
        places = params["frequencies"][:: self.images_per_class].astype(jnp.int32)
        bits = jnp.zeros((len(places), self.height * self.width), jnp.uint8)
        bits = bits.at[jnp.arange(len(places))[:, None], places].set(1)
        return super().to_arrays(params) | {MASKS: jnp.packbits(bits, axis=-1)}
