"""Plain numbers in codes: multiples of one step. Gradients go straight through the rounding.

After every update the step follows the bits that the codes take. Rendering therefore always sees
the numbers of a file that fits the budget.
"""

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.formats import codes
from gsdd_jax.formats.base import LEAST_BYTES
from gsdd_jax.formats.codes import STEP
from gsdd_jax.parameterizations import grids
from gsdd_jax.parameterizations.base import (
    Budget,
    Options,
    Parameterization,
    Params,
    RatedTogether,
    Shape,
)

FILLED, LEAST_FILLED = 0.99, 0.97  # share of the budget that is aimed at, and that is enough
GAIN = 0.1  # share of the difference that the step makes up for after an update
UPDATES = 40  # of the step at the start
FASTEST = 4.0  # octaves of the step at once
LEAST_STEP, MOST_STEP = 1e-30, 1e30


class Codes(RatedTogether, codes.Codes):
    """Parameterizations of `Numbers` with `dtype="codes"`."""

    contents: ClassVar[str] = "numbers in codes"

    @property
    def described(self) -> str:
        return f"{super().described} in codes"

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        fields = cls.published(image_shape, Budget(bytes_per_class, 1), options)
        one = cls(*image_shape, images_per_class=1, bytes_per_class=bytes_per_class,
                  **fields | dict(options))  # fmt: skip
        bits = max(cls.bits_each * one.numbers_each, 8 * LEAST_BYTES)
        return max(1, int(one.bits_for_codes / bits))

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> Params:
        params = super().init(key, images)
        return _filling(self, params | {STEP: jnp.ones(len(images))})

    def quantized(self, params: Params) -> Params:
        """Returns multiples of the step, which is not learned; gradients are straight-through."""
        step = lax.stop_gradient(params[STEP])[:, None]
        return params | self.arrays_of(step * grids.rounded(self.numbers(params) / step))

    def penalty(self, params: Params) -> Float[Array, ""]:
        return jnp.zeros(()) if self.rounded_late else super().penalty(params)

    def project(self, params: Params) -> Params:
        """Moves the step toward that of codes that fill the budget."""
        params = super().project(params)
        return params if self.rounded_late else self.followed(params, GAIN)

    def rate(self, params: Params) -> Float[Array, ""]:
        """Returns bits of an image by the current frequencies of codes; see `grids.rate`.

        They include its share of the tables.
        """
        return self._usage(params)[0]

    def report(self, params: Params) -> dict[str, Any]:
        bits = jax.jit(self.rate)(params) / self.numbers_each
        return {STEP: float(params[STEP][0]), "bits_per_number": float(bits)}

    def to_arrays(self, params: Params) -> dict[str, np.ndarray]:
        """Returns the arrays of a file, of which codes with a suitable step fill the budget."""
        self.check_finite(params)
        return self.fitting(_filling(self, params))

    def coarser(self, params: Params, factor: float) -> Params:
        return params | {STEP: params[STEP] * factor}

    def packed(self, params: Params) -> dict[str, np.ndarray] | None:
        found, columns, plain = jax.tree.map(np.asarray, _to_codes(self, params))
        made = self.pack(found, columns, float(np.asarray(params[STEP])[0]))
        return made and made | plain

    def followed(self, params: Params, gain: float) -> Params:
        """Returns a step nearer to that of codes that fill the budget, by a share `gain`."""
        bits, per_octave, least = self._usage(params)
        excess = bits - FILLED * self.bits_for_codes / self.num_images
        octaves = jnp.clip(gain * excess / per_octave, -FASTEST, FASTEST)
        step = jnp.clip(params[STEP] * 2**octaves, jnp.maximum(least, LEAST_STEP), MOST_STEP)
        return params | {STEP: lax.stop_gradient(step)}

    def _usage(self, params: Params) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
        """Returns bits of an image, bits saved by a step twice as large, and the least step."""
        numbers, count = self.numbers(params), len(params[STEP])
        at = (numbers / lax.stop_gradient(params[STEP])[:, None]).ravel()
        column = jnp.broadcast_to(self.columns(params), numbers.shape).ravel()
        nearest = lax.stop_gradient(jnp.round(at))

        def by_column(reduce, values):
            return reduce(values, column, self.num_columns)

        counts = by_column(jax.ops.segment_sum, jnp.ones_like(at))
        most, least = (by_column(f, nearest) for f in (jax.ops.segment_max, jax.ops.segment_min))
        longer = jnp.where(counts > 0, most - least + 1 - codes.SHORTEST, 0)
        tables = 8 * jnp.maximum(longer, 0).sum()
        # One alphabet of all columns' codes; the bits that tell columns apart are not coded.
        levels = 2 * codes.LARGEST + 1
        place = jnp.clip(at + codes.LARGEST, 0, levels - 1) + levels * column
        codes_ = jnp.round(place).astype(jnp.int32)
        joint = len(at) * grids.rate(place, codes_, codes_, levels * self.num_columns)
        shares = counts / len(at)
        known = -(counts * jnp.log2(jnp.where(counts > 0, shares, 1))).sum()
        # Tables are of the whole set, of which there may be a part.
        tables /= self.num_images
        saved = self.numbers_each + math.log(2) * tables
        return (joint - known) / count + tables, saved, jnp.abs(numbers).max() / codes.LARGEST


class Numbers(Parameterization):
    """Base of parameterizations of `formats.codes.Numbers`."""

    codes: ClassVar[type] = Codes
    rounded_late: ClassVar[bool] = False  # whether numbers are rounded only when they are stored


@functools.partial(jax.jit, static_argnums=0)
def _filling(kind: Codes, params: Params) -> Params:
    """Returns the step at which codes fill the budget, unless they already do."""
    used = kind.rate(params) * kind.num_images / kind.bits_for_codes
    return lax.cond(
        (used > LEAST_FILLED) & (used <= 1),
        lambda params: params,
        lambda params: lax.fori_loop(0, UPDATES, lambda _, p: kind.followed(p, 1.0), params),
        params,
    )


@functools.partial(jax.jit, static_argnums=0)
def _to_codes(
    kind: Codes, params: Params
) -> tuple[Int[Array, "m n"], Int[Array, "_ n"], dict[str, Array]]:
    """Returns codes, their columns, and the arrays that are not coded."""
    found = jnp.round(kind.numbers(params) / params[STEP][:, None]).astype(jnp.int32)
    plain, specs = super(Codes, kind).to_arrays(params), kind.array_specs(kind.num_images)
    return found, jnp.asarray(kind.columns(params)), {n: plain[n] for n in plain if n in specs}
