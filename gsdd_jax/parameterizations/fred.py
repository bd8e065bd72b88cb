"""FreD (Shin et al., 2023): images as some coefficients of their cosine transform."""

import dataclasses
import functools
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, UInt8

from gsdd_jax.core.errors import UsageError
from gsdd_jax.formats import fred
from gsdd_jax.formats.arrays import sides
from gsdd_jax.formats.fred import MASKS, cosines, mask_bytes
from gsdd_jax.parameterizations.base import Budget, Options, Parameterization, Rate, Shape
from gsdd_jax.parameterizations.codes import Numbers


@dataclasses.dataclass(frozen=True)
class FreD(Numbers, fred.FreD):
    """IPC · H · W / size images per class (twice as many in bfloat16), by SGD with momentum 0.5.

    Channels keep `num_frequencies` coefficients of an orthonormal two-dimensional DCT-II. The kept
    frequencies vary most over the initial images of a class, and its images and channels share
    them. The budget, unlike the published one, counts one bit per frequency and class for them.
    Therefore a channel has a few numbers fewer than `size` (63 of 64 at 32 x 32).

    Coefficients are of images in [0, 1] space, those of the published code of images normalized per
    channel. By TM that code refuses whitened images; at IPC 1 on CIFAR-10 its student takes 50
    steps from one of the first five epochs.
    """

    derived: ClassVar[frozenset[str]] = Parameterization.derived | {"num_frequencies"}

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit: truncated coefficients of real images are the best one.

        The rate of SGD is the best of four in short runs (docs/results.md), for DC a published one.
        """
        rates = {"dm": 1.0, "dc": 0.01, "tm": 10.0}
        known = {"distill.learning_rate": rates[objective]} if objective in rates else {}
        return {"init.num_steps": 0} | known

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns `size`: the power of the area that meets both published sizes at IPC 1.

        As many frequencies are kept in codes, or all.
        """
        del budget
        area = image_shape[0] * image_shape[1]
        size = max(1, round(64 * (area / 32**2) ** 1.25))
        return {"size": size, "num_frequencies": min(area, options.get("size", size))}

    @classmethod
    def within(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns images per class by `size`, then the frequencies that fit with the masks."""
        height, width, channels = image_shape
        fields = cls.published(image_shape, budget, options)
        size = options.get("size", fields["size"])
        itemsize = jnp.dtype(options.get("dtype", cls.dtype)).itemsize
        there, masks = budget.bytes_per_class, mask_bytes(height, width)
        numbers = there // (4 * channels)  # per channel, in float32

        def counts(size, there):
            """Returns images of that size, and the frequencies that they have bytes for."""
            images = there // (4 * channels) // size * (4 // itemsize)
            return images, (there - masks) // (images * channels * itemsize) if images else 0

        images, count = counts(size, there)
        if count < 1:
            least = next((n for n in range(2, numbers + 1) if counts(n, there)[1] > 0), None)
            if least is None and size > 1:
                more = itertools.count(max(masks + 4 * channels, 4 * channels * size))
                raise budget.refusal(1, cls.name, next(n for n in more if counts(size, n)[1] > 0))
            raise UsageError(
                f"parameterization fred: size: expected from {least or 2} to {max(2, numbers)} "
                f"numbers per channel, for {there} bytes per class, got {size}"
            )
        frequencies = min(count, height * width)
        return fields | {"images_per_class": images, "num_frequencies": frequencies}

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns the images' own coefficients at the class's frequencies: already the best fit.

        `images` are ordered by class, `images_per_class` of each.
        """
        spectrum = sides(
            cosines(self.height, self.height, self.height).T,
            images,
            cosines(self.width, self.width, self.width).T,
        ).reshape(len(images), -1, self.channels)
        of_class = spectrum.reshape(-1, self.images_per_class, *spectrum.shape[1:])
        # A single image has no variance: its largest coefficients are kept.
        spread = of_class.var(1) if self.images_per_class > 1 else of_class[:, 0] ** 2
        _, kept = jax.lax.top_k(spread.mean(-1), self.num_frequencies)
        kept = jnp.repeat(jnp.sort(kept, axis=-1), self.images_per_class, axis=0)
        return {
            "coefficients": jnp.take_along_axis(spectrum, kept[..., None], axis=1),
            # Not learned: `decode` converts them to integers, whose gradient is 0. float32 is
            # exact up to 4096².
            "frequencies": kept.astype(jnp.float32),
        }

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        return optax.sgd(learning_rate, momentum=0.5)

    def to_arrays(self, params: dict[str, Array]) -> dict[str, Array]:
        return super().to_arrays(params) | {MASKS: _masks(self, params["frequencies"])}


@functools.partial(jax.jit, static_argnums=0)
def _masks(kind: FreD, frequencies: Float[Array, "m k"]) -> UInt8[Array, "classes bytes"]:
    places = frequencies[:: kind.images_per_class].astype(jnp.int32)
    bits = jnp.zeros((len(places), kind.height * kind.width), jnp.uint8)
    bits = bits.at[jnp.arange(len(places))[:, None], places].set(1)
    return jnp.packbits(bits, axis=-1)
