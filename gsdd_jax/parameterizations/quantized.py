"""Gaussians as codes on uniform grids, entropy-coded.

A column is one number of every Gaussian: u, v, the three of L, the channels, the opacity. All
images share its grid. The ends of the grid are learned parameters; its number of values follows
from the bits of its field. Rendering rounds to the grid. Gradients go straight through to values
within the grid, and to the end that clips a value (learned step size quantization).

One array holds the Gaussians of all images, whose counts differ by at most one.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core.fields import check_value
from gsdd_jax.formats import quantized
from gsdd_jax.formats.arrays import einsum
from gsdd_jax.formats.codes import YCOCG
from gsdd_jax.formats.quantized import ENDS
from gsdd_jax.parameterizations import grids
from gsdd_jax.parameterizations.base import (
    Budget,
    CodedTogether,
    Options,
    Rate,
    Shape,
    on_device,
)
from gsdd_jax.parameterizations.gaussian import Gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages

ENDS_RATE = 0.1  # learning rate of the ends, relative to that of the Gaussians
LEAST_DIAGONAL = 1e-2  # pixels; lower bound of L's diagonal where its logarithm is stored


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedImages:
    """Gaussians before rounding, and their shared grids; a pytree."""

    gaussians: GaussianImages | Any  # [n, ...], ordered by image; or `GaussianClips`
    counts: Array | Any  # Float[images]: Gaussians per image; floats, as all leaves of parameters
    low: Array | Any  # [columns]: smallest value of each grid
    high: Array | Any  # [columns]: largest value of each grid


@dataclasses.dataclass(frozen=True)
class Quantized(CodedTogether, Gaussians, quantized.Quantized):
    """Gaussians of a few bits per number instead of nine bfloat16 numbers."""

    derived: ClassVar[frozenset[str]] = Gaussians.derived | CodedTogether.derived
    by_image: ClassVar[bool] = False
    contents: ClassVar[str] = "quantized Gaussians"

    @property
    def described(self) -> str:
        return f"{self.num_gaussians / self.num_images:.1f} Gaussians in codes"

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        """Returns images for 22 Gaussians each at 32 x 32, 88 at twice the side.

        Chosen here, not tuned.
        """
        images = super().suggested_images(image_shape, bytes_per_class, options)
        return int(images * min(1.0, 32 / math.sqrt(image_shape[0] * image_shape[1])))

    @classmethod
    def published(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns a number of Gaussians until `within` replaces it."""
        return {"num_gaussians": 1}

    @classmethod
    def within(cls, image_shape: Shape, budget: Budget, options: Options) -> dict[str, Any]:
        """Returns the number of all Gaussians that the bytes hold, too.

        Raises UsageError also for fewer `bits_per_gaussian` than codes of fixed length take.
        """
        if options.get("coding") == "none":
            check_value(
                "config.parameterization.options.bits_per_gaussian",
                "float",
                options.get("bits_per_gaussian", 0),
                (sum(cls._one(image_shape, options).widths), quantized.MOST_BITS),
                automatic=True,
            )
        fields = super().within(image_shape, budget, options)
        one = cls(*image_shape, **fields | dict(options))
        count = int(one.bits_for_codes / one.stored_bits)
        return fields | {"num_gaussians": max(one.num_images, count)}

    @classmethod
    def bytes_per_gaussian(cls, channels: int, options: Options) -> float:
        return cls._one((1, 1, channels), options).stored_bits / 8

    @classmethod
    def shared_bytes(cls, image_shape: Shape, options: Options) -> int:
        return cls._one(image_shape, options).overhead_bytes

    @classmethod
    def _one(cls, image_shape, options):
        return cls(*image_shape, images_per_class=1, num_gaussians=1, **options)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> QuantizedImages:
        """Returns random Gaussians, as without quantization, and grids wider than their values."""
        ends = self.first_ends()
        low, high = np.concatenate([np.float32(ends[name]) for name in self.layout]).T
        return QuantizedImages(
            self.drawn(key, images), *on_device((np.float32(self.counts), low, high))
        )

    def drawn(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Any:
        """Returns random Gaussians of all images, one image after the other."""
        drawn = super().init(key, images[:1])  # as those of one image
        return jax.tree.map(lambda leaf: leaf[0], drawn)

    def first_ends(self) -> dict[str, list[tuple[float, float]]]:
        """Returns the ends of the grids at first, by field."""
        diagonal = (math.log(LEAST_DIAGONAL), math.log(8.0)) if self.log_scales else (-0.5, 4.0)
        luma = [(-0.5, 1.5), (-1.0, 1.0), (-1.0, 1.0)]
        return {
            "means": [(-1.0, 1.0)] * 2,
            "cholesky": [diagonal, (-2.0, 2.0), diagonal],
            "colors": luma if self.has_luma else [(-0.5, 1.5)] * self.colors,
            "opacities": [(0.0, 2.0)],
        }

    def select(self, params: QuantizedImages, indices: Int[Array, "k"]) -> QuantizedImages:
        """Returns some images, also repeated ones; Gaussians after theirs are of no image."""
        some = dataclasses.replace(params, counts=params.counts[indices])
        slots = jnp.arange(len(indices) * self.most_gaussians)
        place = _owners(some.counts, len(slots)).clip(max=len(indices) - 1)
        moved = self.offsets(params)[indices[place]] - self.offsets(some)[place]
        take = lambda leaf: leaf.at[slots + moved].get(mode="clip")
        return dataclasses.replace(some, gaussians=jax.tree.map(take, params.gaussians))

    def quantized(self, params: QuantizedImages) -> Any:
        """Returns the Gaussians of all images, rounded to the grids."""
        values = self._columns(params.gaussians)
        values = grids.on_grid(values, params.low, params.high, self.levels)
        return self.built(self.fields(values))

    def offsets(self, params: QuantizedImages) -> Int[Array, "bounds"]:
        """Returns where each image's Gaussians begin, and where the last image's end."""
        return jnp.pad(jnp.cumsum(params.counts), (1, 0)).astype(jnp.int32)

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        """Returns Adam; the ends learn at a tenth of the rate."""

        def kind(path):
            return "ends" if path[0].name in ("low", "high") else path[0].name

        return optax.multi_transform(
            {
                "ends": optax.adam(ENDS_RATE * learning_rate),
                "gaussians": optax.adam(learning_rate),
                "counts": optax.set_to_zero(),
            },
            lambda params: jax.tree_util.tree_map_with_path(lambda p, _: kind(p), params),
        )

    def penalty(self, params: QuantizedImages) -> Float[Array, ""]:
        """Returns the boundary loss, plus a penalty of bits beyond the budget."""
        penalty = super().penalty(params.gaussians)
        if self.coding == "range" and self.rate_weight:
            excess = self.rate(params) - self.bits_for_codes / self.num_gaussians
            penalty += self.rate_weight * jax.nn.relu(excess)
        return penalty

    def rate(self, params: QuantizedImages) -> Float[Array, ""]:
        """Returns coded bits per Gaussian by the codes' current frequencies; see `grids.rate`."""
        return sum(self._rates(params))

    def _rates(self, params: QuantizedImages) -> list[Float[Array, ""]]:
        values = self._columns(params.gaussians)
        at = grids.places(values, params.low, params.high, self.levels)
        codes = grids.nearest(at, self.levels)
        owner = _owners(params.counts, len(codes))
        # Stored codes of u are the differences of sorted ones in each image.
        ordered = jnp.sort(owner * self.levels[0] + codes[:, 0])
        image, u = ordered // self.levels[0], ordered % self.levels[0]
        same = jnp.diff(image, prepend=-1) == 0
        steps = jnp.where(same, jnp.diff(u, prepend=0), u)
        stored = codes.at[:, 0].set(steps)
        return [
            grids.rate(at[:, j], codes[:, j], stored[:, j], levels)
            for j, levels in enumerate(self.levels)
        ]

    def project(self, params: QuantizedImages) -> QuantizedImages:
        """Clips means, and keeps the upper end of each grid above the lower."""
        least = params.low + 1e-3
        kept = super().project(params.gaussians)
        return dataclasses.replace(params, gaussians=kept, high=jnp.maximum(params.high, least))

    def report(self, params: QuantizedImages) -> dict[str, Any]:
        """Returns bits per Gaussian by field, and Gaussians per image."""
        columns = self.widths if self.coding == "none" else jax.jit(self._rates)(params)
        columns = np.array([float(bits) for bits in columns])
        bits = {name: float(part.sum()) for name, part in self.by_field(columns).items()}
        least, most = int(self.counts.min()), int(self.counts.max())
        each = {"least": least, "mean": float(self.counts.mean()), "most": most}
        return {"bits_per_gaussian": bits, "gaussians_per_image": each}

    def to_arrays(self, params: QuantizedImages) -> dict[str, Any]:
        """Returns the arrays of a file; grids are widened until the coded bytes fit the budget.

        Raises UsageError for parameters that are not finite.
        """
        self.check_finite(params)
        return self.packed(params) if self.coding == "none" else self.fitting(params)

    def coarser(self, params: QuantizedImages, factor: float) -> QuantizedImages:
        middle, half = (params.low + params.high) / 2, (params.high - params.low) / 2
        return dataclasses.replace(params, low=middle - factor * half, high=middle + factor * half)

    def from_arrays(self, arrays: Mapping[str, Any]) -> QuantizedImages:
        fields = super().from_arrays(arrays)
        counts = on_device(np.asarray(fields.pop("counts"), np.float32))
        return QuantizedImages(
            self.built(fields), counts, *on_device([*np.asarray(arrays[ENDS]).T])
        )

    def packed(self, params: QuantizedImages) -> dict[str, np.ndarray]:
        return self.pack(*map(np.array, _to_codes(self, params)))

    def columns(self, g: Any) -> dict[str, Float[Array, "n _"]]:
        """Returns the numbers that grids round, by field: the inverse of `fields`."""
        found = {name: getattr(g, name) for name in self.layout}
        if self.log_scales:
            l11, l21, l22 = jnp.moveaxis(g.cholesky, -1, 0)
            # The sign of a column of L has no effect: its diagonal is made positive.
            sign = jnp.where(l11 + 0.5 < 0, -1.0, 1.0)
            logs = [jnp.log(jnp.maximum(jnp.abs(x + 0.5), LEAST_DIAGONAL)) for x in (l11, l22)]
            found["cholesky"] = jnp.stack([logs[0], sign * l21, logs[1]], -1)
        if self.has_luma:
            found["colors"] = einsum("nc,dc->nd", g.colors, YCOCG)
        return {n: a.reshape(*g.means.shape[:-1], -1) for n, a in found.items()}

    def _columns(self, g: Any) -> Float[Array, "n columns"]:
        return jnp.concatenate(list(self.columns(g).values()), -1)


@functools.partial(jax.jit, static_argnums=0)
def _to_codes(kind, params):
    """Returns codes [n, columns], and the grids' ends [columns, 2] as stored."""
    values = kind._columns(params.gaussians)
    places = grids.places(values, params.low, params.high, kind.levels)
    return grids.nearest(places, kind.levels), jnp.stack([params.low, params.high], 1)


def _owners(counts: Float[Array, "m"], size: int) -> Int[Array, "size"]:
    """Returns the image of each Gaussian; m: none."""
    ends = jnp.cumsum(counts).astype(jnp.int32)
    return jnp.searchsorted(ends, jnp.arange(size), side="right").astype(jnp.int32)
