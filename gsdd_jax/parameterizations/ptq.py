"""Pixels that are quantized in patches after distillation (Tran & Bae, AAAI 2026).

As described ("Post Training Quantization for Efficient Dataset Condensation", arXiv:2603.13346):
images of any distillation are quantized, to 2 bits, without further training; asymmetrically, in
small patches; patches that a clustering aware of quantization finds similar share offset and scale;
a refinement aligns the distributions of the dequantized and the original image.

Chosen here, since no code is published:

- Groups are of one image, eight by default, and their ranges are stored in bfloat16.
- The clustering is Lloyd's: a patch is of the group with the least error of its quantized pixels;
  the range of a group is the least-squares one. It begins at least and largest values of patches.
- The refinement is a gain and an offset of each channel, by mean and standard deviation.
- Patches at the lower and right edge are filled by edge values.
- Codes are range-coded by those of neighbors. If the file would still exceed the budget, codes
  repeat the one before in their patch where that is nearly as good.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from gsdd_jax.formats import ptq
from gsdd_jax.formats.ptq import CODES, RANGES, REFINEMENT
from gsdd_jax.parameterizations.base import CodedTogether, Options, Shape, Transform
from gsdd_jax.parameterizations.pixels import Images
from gsdd_jax.rasterizer.gaussians import round_to_bfloat16

ITERATIONS = 10  # of the clustering
RIDGE = 1e-3  # pixels that hold a range where it is
NARROWEST = 1e-6  # range that is divided
NEAREST = 0.5  # steps between a pixel and its code
TRIES, WIDER = 10, 1.3  # of larger distances, until the file fits


@dataclasses.dataclass(frozen=True)
class PTQ(CodedTogether, Images, ptq.PTQ):
    """Pixels of two bits with the scales of few groups of patches; see the module."""

    contents: ClassVar[str] = "quantized pixels"

    @property
    def described(self) -> str:
        """Bits and groups."""
        return f"pixels of {self.bits} bits in {self.groups} groups of patches"

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns the settings of pixels, and as many images as fit in fixed width."""
        return super().recipe(objective) | {"budget.images_per_class": 0}

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        eight = cls(*image_shape, images_per_class=8, **options)  # whose codes end with a byte
        return max(1, 8 * bytes_per_class // (eight.bytes_of_codes + eight.overhead_bytes))

    def to_network(self, params: dict[str, Array], transform: Transform) -> Float[Array, "m h w c"]:
        seen = super().to_network(params, transform)
        if not self.aware:
            return seen
        fixed = lax.stop_gradient(seen)
        stored = self.dequantized(_quantized(self, transform.inverse(fixed), NEAREST))
        return seen + (transform(stored) - fixed)

    def to_arrays(self, params: dict[str, Array]) -> dict[str, np.ndarray]:
        """Returns the arrays of a file that fits the budget."""
        self.check_finite(params)
        for wider in range(TRIES):
            reach = NEAREST * WIDER**wider
            found = jax.tree.map(np.asarray, _quantized(self, params["pixels"], reach))
            arrays = found | {CODES: self.pack(*found[CODES])}
            used = self.used_bytes(arrays)
            if used <= self.most_bytes:
                return arrays
        raise self.too_few_bytes(used, "with codes that hardly vary")

    def dequantized(self, stored: dict[str, Any]) -> Float[Array, "m h w c"]:
        """Returns the images of what `_quantized` returns."""
        return ptq.refined(self.values(*stored[CODES], stored[RANGES]), stored[REFINEMENT])


@functools.partial(jax.jit, static_argnums=0)
def _quantized(
    kind: PTQ, images: Float[Array, "m h w c"], reach: Float[Array, ""]
) -> dict[str, Any]:
    """Returns the arrays of a file, with the codes and the patches' groups as a pair."""
    (rows, columns), side, channels = kind.patches, kind.patch, kind.channels
    below, right = rows * side - kind.height, columns * side - kind.width
    whole = jnp.pad(images, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    whole = whole.reshape(-1, rows, side, columns, side, channels)
    patches = whole.transpose(0, 1, 3, 5, 2, 4).reshape(len(images), -1, side**2)
    ranges, groups = jax.vmap(functools.partial(_clustered, kind))(patches)
    ends = jnp.take_along_axis(ranges, groups[..., None], 1)
    codes = _repeating(_places(patches, ends, kind.top), reach)
    codes = codes.reshape(-1, rows, columns, channels, side, side).transpose(0, 1, 4, 2, 5, 3)
    codes = codes.reshape(-1, rows * side, columns * side, channels)
    codes = codes[:, : kind.height, : kind.width].astype(jnp.int32)
    groups = groups.reshape(-1, rows, columns, channels)
    values = kind.values(codes, groups, ranges)
    spread = values.std((1, 2))
    ratio = images.std((1, 2)) / jnp.maximum(spread, NARROWEST)
    gain = round_to_bfloat16(jnp.where(spread > NARROWEST, ratio - 1, 0))
    offset = images.mean((1, 2)) - (1 + gain) * values.mean((1, 2))
    refinement = jnp.stack([gain, round_to_bfloat16(offset)], -1)
    return {CODES: (codes, groups), RANGES: ranges, REFINEMENT: refinement}


def _clustered(
    kind: PTQ, patches: Float[Array, "n p"]
) -> tuple[Float[Array, "g 2"], Int[Array, "n"]]:
    """Returns the ranges of an image's groups, ascending and as stored, and each patch's group."""
    bounds = jnp.stack([patches.min(-1), patches.max(-1)], -1)
    order = jnp.argsort(bounds.sum(-1))
    evenly = (2 * np.arange(kind.groups) + 1) * len(patches) // (2 * kind.groups)

    def parts(patches, ranges):
        return jnp.round(_places(patches, ranges, kind.top)) / kind.top

    def nearest(ranges):
        part, (low, high) = parts(patches[:, None], ranges), ranges.T[..., None]
        errors = (((1 - part) * low + part * high - patches[:, None]) ** 2).sum(-1)
        return errors.argmin(-1)

    def fitted(_, ranges):
        groups = nearest(ranges)
        part = parts(patches, ranges[groups])
        rest = 1 - part
        terms = rest * rest, rest * part, part * part, rest * patches, part * patches
        sums = jax.ops.segment_sum(jnp.stack(terms, -1).sum(1), groups, kind.groups)
        ll, lr, rr, lx, rx = sums.T
        ll, rr = ll + RIDGE, rr + RIDGE
        lx, rx = lx + RIDGE * ranges[:, 0], rx + RIDGE * ranges[:, 1]
        ends = jnp.stack([rr * lx - lr * rx, ll * rx - lr * lx], -1) / (ll * rr - lr**2)[:, None]
        return jnp.sort(ends, -1)

    ranges = lax.fori_loop(0, ITERATIONS, fitted, bounds[order[evenly]])
    ranges = round_to_bfloat16(ranges[jnp.argsort(ranges.sum(-1))])
    return ranges, nearest(ranges)


def _places(
    patches: Float[Array, "*s p"], ranges: Float[Array, "*t 2"], top: int
) -> Float[Array, "*u p"]:
    """Returns where pixels are in their ranges, from 0 to `top`."""
    low, high = ranges[..., :1], ranges[..., 1:]
    return jnp.clip((patches - low) / jnp.maximum(high - low, NARROWEST), 0, 1) * top


def _repeating(places: Float[Array, "m n p"], reach: Float[Array, ""]) -> Float[Array, "m n p"]:
    """Returns codes within `reach` of their places, as near to the one before as that allows."""

    def code(before, place):
        nearest = jnp.round(place)
        least = jnp.minimum(jnp.ceil(place - reach), nearest)
        most = jnp.maximum(jnp.floor(place + reach), nearest)
        chosen = jnp.clip(before, least, most)
        return chosen, chosen

    along = jnp.moveaxis(places, -1, 0)
    return jnp.moveaxis(lax.scan(code, jnp.round(along[0]), along)[1], 0, -1)
