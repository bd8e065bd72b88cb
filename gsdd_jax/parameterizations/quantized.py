"""Gaussians whose numbers are codes on uniform grids, entropy-coded.

A column is one number of every Gaussian: u, v, the three of L, the channels, the opacity. Its grid
is shared by all images and is learned: the two ends are parameters, the bits of its field say how
many values lie between them. Rendering rounds to the grid; gradients go straight through to values
within it, and to the end beyond which a value lies (learned step size quantisation).
"""

from __future__ import annotations

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

from gsdd_jax.core.errors import UsageError
from gsdd_jax.core.options import Limits
from gsdd_jax.parameterizations import entropy
from gsdd_jax.parameterizations.base import Budget, Rate, num_bytes
from gsdd_jax.parameterizations.gaussian import Gaussians
from gsdd_jax.rasterizer.gaussians import GaussianImages, budget_bytes

CODINGS = ("range", "none")
LEAST_BITS = 8  # of a Gaussian's codes: less is not written, and not believed of a file
ENDS_BYTES = 8  # of a column: two float32
ENDS_RATE = 0.1  # of the ends, as a part of the Gaussians'
LEAST_DIAGONAL = 1e-2  # pixels; of L, where its logarithm is stored
COARSER = 1.01  # so much wider a grid becomes, again and again, until the file fits
CODES, TABLES, ENDS = "codes", "tables", "ends"
YCOCG = np.array([[0.25, 0.5, 0.25], [0.5, 0.0, -0.5], [-0.25, 0.5, -0.25]], np.float32)
FROM_YCOCG = np.array([[1.0, 1.0, -1.0], [1.0, 0.0, 1.0], [1.0, -1.0, -1.0]], np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedImages:
    """Gaussians before rounding, and the grids that all of them share; a pytree."""

    gaussians: GaussianImages
    low: Array | Any  # [columns]: the least value of each grid
    high: Array | Any  # [columns]: the largest

    @property
    def means(self) -> Array | Any:
        """Before rounding."""
        return self.gaussians.means


@dataclasses.dataclass(frozen=True)
class Quantized(Gaussians):
    """Codes of a few bits instead of nine bfloat16.

    Attributes:
      bits_means, bits_cholesky, bits_colors, bits_opacities: of a column's codes, before coding.
      log_scales: the grids of L's diagonal are of its logarithm.
      luma: those of three channels are of luma and two differences of chroma (YCoCg).
      coding: "range": Gaussians in the order of u, whose differences are coded, each column by the
        frequencies of its codes; "none": codes of fixed length.
      bits_per_gaussian: that the budget is divided by; 0: those of fixed length. With coding, what
        distillation ends with is made to fit, by grids that are as much coarser as it takes.
      rate_weight: of the bits a Gaussian above those, in the objective.
      bytes_per_class, num_classes: follow from the budget and the data set.
    """

    name: ClassVar[str] = "quantized"
    limits: ClassVar[Limits] = Gaussians.limits | {
        **{f"bits_{field}": (2, 8) for field in ("means", "cholesky", "colors", "opacities")},
        "coding": CODINGS,
        "bytes_per_class": (1, 2**31 - 1),
    }
    derived: ClassVar[frozenset[str]] = Gaussians.derived | {"bytes_per_class", "num_classes"}
    uses: ClassVar[frozenset[str]] = frozenset({"reserved", "fill"})
    bytes_per_class: int = 0
    num_classes: int = 1
    # What costs least at the PSNR of a fit (docs/results.md).
    bits_means: int = 7
    bits_cholesky: int = 5
    bits_colors: int = 5
    bits_opacities: int = 4
    log_scales: bool = False
    luma: bool = True
    coding: str = "range"
    bits_per_gaussian: float = 0.0
    rate_weight: float = 0.01

    @classmethod
    def within(
        cls, image_shape: tuple[int, int, int], budget: Budget, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`gpc` images a class, and as many Gaussians in each as their bytes hold."""
        gpc, classes = budget.gpc, budget.num_classes
        there = budget_bytes(budget.ipc, image_shape) - budget.reserved
        fields = {"images_per_class": gpc, "bytes_per_class": there, "num_classes": classes}
        one = cls(*image_shape, num_gaussians=1, **fields, **options)
        bits = 8 * (classes * there - one.overhead_bytes)
        count = int(bits / (classes * gpc * one.stored_bits)) if gpc > 0 else 0
        if count < 1:
            raise UsageError(
                f"budget: {gpc} images a class of quantized Gaussians do not fit into the bytes of "
                f"ipc={budget.ipc} ({there} bytes a class, of all {one.overhead_bytes} for grids "
                f"and tables, {one.stored_bits:g} bits a Gaussian); expected gpc of at least 1 and "
                "at least one Gaussian an image"
            )
        return fields | {"num_gaussians": count}

    @functools.cached_property
    def widths(self) -> tuple[int, ...]:
        """Bits of each column's codes."""
        bits = [self.bits_means] * 2 + [self.bits_cholesky] * 3 + [self.bits_colors] * self.channels
        return tuple(bits + [self.bits_opacities] * self.opacity)

    @property
    def stored_bits(self) -> float:
        """A Gaussian's share of the budget."""
        return self.bits_per_gaussian or float(sum(self.widths))

    @property
    def overhead_bytes(self) -> int:
        """Of the grids and, with coding, the tables and what the coder may end with."""
        tables = sum(self._levels) + 8 if self.coding == "range" else 0
        return ENDS_BYTES * len(self.widths) + tables

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> QuantizedImages:
        """Random Gaussians, as without quantisation; grids with room around them."""
        diagonal = (math.log(LEAST_DIAGONAL), math.log(8.0)) if self.log_scales else (-0.5, 4.0)
        color = [(-0.5, 1.5)] * self.channels
        if self._has_luma:
            color = [(-0.5, 1.5), (-1.0, 1.0), (-1.0, 1.0)]
        ends = [(-1.0, 1.0)] * 2 + [diagonal, (-2.0, 2.0), diagonal] + color + [(0.0, 2.0)]
        low, high = jnp.array(ends[: len(self.widths)], jnp.float32).T
        return QuantizedImages(super().init(key, images), low, high)

    def select(self, params: QuantizedImages, indices: Int[Array, "k"]) -> QuantizedImages:
        return dataclasses.replace(params, gaussians=super().select(params.gaussians, indices))

    def seen(self, params: QuantizedImages) -> GaussianImages:
        """On the grids."""
        values = self._columns(params.gaussians)
        return self._gaussians(on_grid(values, params.low, params.high, self._levels))

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        """Adam; the ends move at a tenth of the rate."""
        kind = lambda path: "ends" if path[0].name in ("low", "high") else "gaussians"
        return optax.multi_transform(
            {"ends": optax.adam(ENDS_RATE * learning_rate), "gaussians": optax.adam(learning_rate)},
            lambda params: jax.tree_util.tree_map_with_path(lambda p, _: kind(p), params),
        )

    def penalty(self, params: QuantizedImages) -> Float[Array, ""]:
        """The boundary loss, and what exceeds the bits that there are."""
        penalty = super().penalty(params)
        if self.coding == "range" and self.rate_weight:
            excess = self.rate(params) - self.stored_bits
            penalty += self.rate_weight * jax.nn.relu(excess)
        return penalty

    def rate(self, params: QuantizedImages) -> Float[Array, ""]:
        """Bits a Gaussian when coded: those of the frequencies that the codes have now.

        Its gradient is that of the frequencies' logarithm, interpolated between neighbouring codes.
        """
        values = self._columns(params.gaussians).reshape(-1, len(self.widths))
        places = _places(values, params.low, params.high, self._levels)
        codes = _nearest(places, self._levels)
        ordered = jnp.sort(codes[:, 0].reshape(-1, self.num_gaussians), axis=1)  # as it is stored
        stored = codes.at[:, 0].set(jnp.diff(ordered, axis=1, prepend=0).ravel())
        exact, smooth = 0.0, 0.0
        for j, levels in enumerate(self._levels):
            cost = jax.lax.stop_gradient(_costs(codes[:, j], levels))
            smooth += jnp.interp(places[:, j], jnp.arange(float(levels)), cost).mean()
            exact += _entropy(stored[:, j], levels)
        return smooth + jax.lax.stop_gradient(exact - smooth)

    def project(self, params: QuantizedImages) -> QuantizedImages:
        """Means are clipped; a grid keeps its direction."""
        least = params.low + 1e-3
        kept = super().project(params.gaussians)
        return dataclasses.replace(params, gaussians=kept, high=jnp.maximum(params.high, least))

    def check_num_images(self, num_images: int) -> None:
        if num_images != self.num_classes * self.images_per_class:
            raise UsageError(
                f"expected images_per_class={self.images_per_class} of each of {self.num_classes} "
                f"classes, got {num_images}"
            )

    def array_specs(self, num_images: int) -> dict[str, jax.ShapeDtypeStruct]:
        del num_images
        ends = jax.ShapeDtypeStruct((len(self.widths), 2), jnp.float32)
        if self.coding == "none":
            size = entropy.packed_bytes(self.widths, self._count)
            return {CODES: jax.ShapeDtypeStruct((size,), jnp.uint8), ENDS: ends}
        return {
            CODES: jax.ShapeDtypeStruct((None,), jnp.uint8),
            TABLES: jax.ShapeDtypeStruct((sum(self._levels),), jnp.uint8),
            ENDS: ends,
        }

    def to_arrays(self, params: QuantizedImages) -> dict[str, Any]:
        """Where the coded bytes exceed the budget, the grids are made coarser until they do not."""
        self._check(params)
        while True:
            arrays = self._coded(params)
            if self.coding == "none" or num_bytes(arrays) <= self._most_bytes:
                return arrays
            middle, half = (params.low + params.high) / 2, (params.high - params.low) / 2
            params = dataclasses.replace(
                params, low=middle - COARSER * half, high=middle + COARSER * half
            )

    def from_arrays(self, arrays: Mapping[str, Any]) -> QuantizedImages:
        ends, payload = np.asarray(arrays[ENDS]), np.asarray(arrays[CODES])
        if self.coding == "none":
            columns = entropy.unpack(payload, self.widths, self._count)
        else:
            columns = entropy.decode(payload, self._tables(arrays), self._count)
            columns[0] = np.cumsum(columns[0].reshape(-1, self.num_gaussians), axis=1).ravel()
            if columns[0].max() >= 2**self.bits_means:
                raise UsageError(f"{CODES}: u goes beyond its {2**self.bits_means} values")
        codes = np.stack(columns, 1).reshape(-1, self.num_gaussians, len(self.widths))
        return _from_codes(self, codes, ends)

    def check_arrays(self, arrays: Mapping[str, Any]) -> None:
        low, high = np.asarray(arrays[ENDS]).T
        if not (low < high).all():
            raise UsageError(f"{ENDS}: expected each column's least value below its largest")
        if self.coding == "none":
            return
        if not all(table.any() for table in self._tables(arrays)):
            raise UsageError(f"{TABLES}: expected a frequency above 0 in every column")
        least = self._count * LEAST_BITS // 8
        if len(arrays[CODES]) < least:  # what a few bytes cannot hold is not asked of the decoder
            raise UsageError(
                f"{CODES}: expected at least {least} bytes for {self._count} Gaussians, got "
                f"{len(arrays[CODES])}"
            )
        if num_bytes({name: arrays[name] for name in (CODES, TABLES, ENDS)}) > self._most_bytes:
            raise UsageError(f"{CODES}: expected at most the budget's {self._most_bytes} bytes")

    @property
    def _has_luma(self) -> bool:
        return self.luma and self.channels == 3

    @property
    def _count(self) -> int:
        return self.num_classes * self.images_per_class * self.num_gaussians

    @property
    def _most_bytes(self) -> int:
        return self.num_classes * self.bytes_per_class

    @property
    def _levels(self) -> tuple[int, ...]:
        return tuple(2**width for width in self.widths)

    def _tables(self, arrays: Mapping[str, Any]) -> list[np.ndarray]:
        return np.split(np.asarray(arrays[TABLES]), np.cumsum(self._levels)[:-1])

    def _check(self, params: QuantizedImages) -> None:
        """Raises UsageError for parameters of another shape or that are not finite."""
        g, shape = params.gaussians, (self.num_classes * self.images_per_class, self.num_gaussians)
        for name, leaf, expected in (
            ("means", g.means, (*shape, 2)),
            ("cholesky", g.cholesky, (*shape, 3)),
            ("colors", g.colors, (*shape, self.channels)),
            ("opacities", g.opacities, shape),
            ("low", params.low, (len(self.widths),)),
            ("high", params.high, (len(self.widths),)),
        ):
            if leaf.shape != expected:
                raise UsageError(
                    f"{name}: expected shape {list(expected)}, by num_classes, images_per_class "
                    f"and num_gaussians, got {list(leaf.shape)}"
                )
            if wrong := int((~np.isfinite(leaf)).sum()):
                raise UsageError(f"{name}: expected finite numbers, got {wrong} that are not")

    def _coded(self, params: QuantizedImages) -> dict[str, Any]:
        codes, ends = map(np.array, _to_codes(self, params))
        # A set has no order; this one is cheap to store.
        order = np.lexsort((codes[..., 1], codes[..., 0]), axis=-1)
        codes = np.take_along_axis(codes, order[..., None], axis=1)
        if self.coding == "none":
            columns = list(codes.reshape(-1, len(self.widths)).T)
            return {CODES: entropy.pack(columns, self.widths), ENDS: ends}
        codes[..., 0] = np.diff(codes[..., 0], axis=1, prepend=0)
        columns = list(codes.reshape(-1, len(self.widths)).T)
        tables = [entropy.table(*pair) for pair in zip(columns, self._levels, strict=True)]
        return {
            CODES: entropy.encode(columns, tables),
            TABLES: np.concatenate(tables),
            ENDS: ends,
        }

    def _columns(self, g: GaussianImages) -> Float[Array, "m n columns"]:
        """What the grids are of."""
        cholesky, colors = g.cholesky, g.colors
        if self.log_scales:
            l11, l21, l22 = jnp.moveaxis(cholesky, -1, 0)
            # The sign of a column of L is of no effect: its diagonal is taken as positive.
            sign = jnp.where(l11 + 0.5 < 0, -1.0, 1.0)
            logs = [jnp.log(jnp.maximum(jnp.abs(x + 0.5), LEAST_DIAGONAL)) for x in (l11, l22)]
            cholesky = jnp.stack([logs[0], sign * l21, logs[1]], -1)
        if self._has_luma:
            colors = jnp.einsum("mnc,dc->mnd", colors, YCOCG, precision="highest")
        columns = [g.means, cholesky, colors] + [g.opacities[..., None]] * self.opacity
        return jnp.concatenate(columns, -1)

    def _gaussians(self, columns: Float[Array, "m n columns"]) -> GaussianImages:
        """The inverse of `_columns`."""
        means, cholesky, colors, opacities = jnp.split(columns, (2, 5, 5 + self.channels), -1)
        if self.log_scales:
            l11, l21, l22 = jnp.moveaxis(cholesky, -1, 0)
            cholesky = jnp.stack([jnp.exp(l11) - 0.5, l21, jnp.exp(l22) - 0.5], -1)
        if self._has_luma:
            colors = jnp.einsum("mnd,cd->mnc", colors, FROM_YCOCG, precision="highest")
        opacities = opacities[..., 0] if self.opacity else jnp.ones(columns.shape[:-1])
        return GaussianImages(
            means, cholesky, colors, opacities, height=self.height, width=self.width
        )


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def on_grid(
    values: Float[Array, "*s columns"],
    low: Float[Array, "columns"],
    high: Float[Array, "columns"],
    levels: tuple[int, ...],
) -> Float[Array, "*s columns"]:
    """Each column's values as the nearest of so many from `low` to `high`.

    The derivative is that of learned step size quantisation (Esser et al., 2020) with both ends
    learned: 1 for a value within the grid, 0 beyond; an end moves the values that lie beyond it,
    and stretches the rounding of those within.
    """
    return _values(_nearest(_places(values, low, high, levels), levels), low, high, levels)


@on_grid.defjvp
def _straight_through(levels, primals, tangents):
    values, low, high = primals
    d_values, d_low, d_high = tangents
    most, places = _most(levels), _places(values, low, high, levels)
    codes = _nearest(places, levels)
    within = d_values + (codes - places) * (d_high - d_low) / most
    tangent = jnp.where(places < 0, d_low, jnp.where(places > most, d_high, within))
    return _values(codes, low, high, levels), tangent


@functools.partial(jax.jit, static_argnums=0)
def _to_codes(kind, params):
    """Codes [images, Gaussians, columns], and the ends of the grids as they are stored."""
    values = kind._columns(params.gaussians)
    places = _places(values, params.low, params.high, kind._levels)
    return _nearest(places, kind._levels), jnp.stack([params.low, params.high], 1)


@functools.partial(jax.jit, static_argnums=0)
def _from_codes(kind, codes, ends):
    low, high = ends[:, 0], ends[:, 1]
    return QuantizedImages(kind._gaussians(_values(codes, low, high, kind._levels)), low, high)


def _most(levels) -> np.ndarray:
    """The largest code of each column."""
    return np.array(levels, np.float32) - 1


def _places(values, low, high, levels) -> Float[Array, "*s columns"]:
    """Where values lie on the grids: at a code where they are whole."""
    return (values - low) / (high - low) * _most(levels)


def _nearest(places, levels) -> Int[Array, "*s columns"]:
    """The codes next to them."""
    return jnp.clip(jnp.round(places), 0, _most(levels)).astype(jnp.int32)


def _values(codes, low, high, levels) -> Float[Array, "*s columns"]:
    return low + codes * ((high - low) / _most(levels))


def _costs(codes: Int[Array, "n"], levels: int) -> Float[Array, "levels"]:
    """Bits of each code by the frequencies of `codes`, smoothed over neighbours."""
    counts = jnp.zeros(levels).at[codes].add(1.0) + 0.5
    padded = jnp.pad(counts, 1, mode="edge")
    smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return -jnp.log2(smooth / smooth.sum())


def _entropy(codes: Int[Array, "n"], levels: int) -> Float[Array, ""]:
    """Mean bits of a code by the frequencies of `codes`."""
    shares = jnp.zeros(levels).at[codes].add(1.0) / len(codes)
    return -(jnp.where(shares > 0, shares * jnp.log2(jnp.where(shares > 0, shares, 1.0)), 0)).sum()
