"""Quantized cosine coefficients of 8 x 8 blocks, entropy-coded.

Real images are their own best fit. Gradients go straight through the rounding. The step of the
quantizer is found by coding: the least at which all images fit the budget.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from gsdd_jax.core.errors import UsageError, counted
from gsdd_jax.formats import dct
from gsdd_jax.formats.coefficients import MOST, SIDE
from gsdd_jax.formats.dct import LEAST_STEP, MOST_STEP, STEP
from gsdd_jax.parameterizations import grids
from gsdd_jax.parameterizations.base import Options, Rate, RatedTogether, Shape

PIXELS_PER_BYTE = 13  # of images about as good as JPEGs of quality 20
# Steps by which rounding is toward 0, for fewer bits; not of a block's mean.
DEADZONE = np.full((SIDE, SIDE), 0.2, np.float32)
DEADZONE[0, 0] = 0.0
FIRST_STEP = 40.0  # of the search
FEW = 256  # images of the search's first part
FILLED, TRIES = 0.99, 12  # share of the budget that ends the search, and its length
CODED = 0.82  # bits after coding by context, relative to coding by frequency only
LARGEST = MOST // 2  # code
MOST_RATED = 127  # codes beyond cost as much


@dataclasses.dataclass(frozen=True)
class DCT(RatedTogether, dct.DCT):
    """Images as JPEG stores them, better coded: by Adam, in units of the quantizer's step."""

    contents: ClassVar[str] = "cosine coefficients"

    @classmethod
    def recipe(cls, objective: str) -> dict[str, Any]:
        """Returns no fit: the coefficients of real images are the best one."""
        return {"init.num_steps": 0}

    @classmethod
    def suggested_images(cls, image_shape: Shape, bytes_per_class: int, options: Options) -> int:
        one = cls(*image_shape, images_per_class=1, **options)
        pixels = one.frames * math.prod(one.planes[0])
        return max(1, PIXELS_PER_BYTE * bytes_per_class // pixels)

    def init(self, key: Key[Array, ""], images: Float[Array, "m h w c"]) -> dict[str, Array]:
        """Returns the images' own coefficients, and the least step at which they fit.

        Values are unknown under a trace. The step is then the first of the search, and grows when
        the set is stored.
        """
        planes = _levels(self, images)
        if isinstance(images, jax.core.Tracer):
            return self._in_steps(planes, self.step or FIRST_STEP)
        if not self.step:
            found = self._fitting(planes, self._guess(planes), LEAST_STEP)
            return self._in_steps(planes, float(found[STEP][0]))
        used = self.used_bytes(self._packed(planes, self.step))
        if used > self.most_bytes:
            left = (self.most_bytes - self.overhead_bytes) / (used - self.overhead_bytes)
            fewer = int(left * self.images_per_class)
            fit = f"about {fewer} per class fit (config.budget.images_per_class), or "
            raise UsageError(
                f"config.parameterization.options.step: expected at most {self.bytes_per_class:,} "
                f"bytes per class, got {-(-used // self.num_classes):,} of "
                f"{counted(self.images_per_class, 'image')} at a step of {self.step:g}; "
                f"{fit if fewer else ''}set step=0"
            )
        return self._in_steps(planes, self.step)

    def quantized(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns the coefficients of the codes; gradients are straight-through."""
        return {name: x if name == STEP else on_codes(x) for name, x in params.items()}

    def optimizer(self, learning_rate: Rate) -> optax.GradientTransformation:
        """Returns Adam; the step is not learned."""
        kinds = {n: "fixed" if n == STEP else "learned" for n in self.shapes()}
        by_kind = {"learned": optax.adam(learning_rate), "fixed": optax.set_to_zero()}
        return optax.multi_transform(by_kind, kinds)

    def rate(self, params: dict[str, Array]) -> Float[Array, ""]:
        """Returns an estimate of coded bits per image, by each frequency's current codes."""

        def of_frequency(x):
            x = jnp.clip(x, -MOST_RATED, MOST_RATED) + MOST_RATED
            codes = jnp.round(x).astype(jnp.int32)
            return grids.rate(x, codes, codes, 2 * MOST_RATED + 1)

        bits = 0.0
        for i, blocks in enumerate(self.blocks):
            columns = towards_zero(params[f"plane_{i}"]).reshape(-1, DEADZONE.size).T
            bits += math.prod(blocks) * jax.vmap(of_frequency)(columns).sum()
        return CODED * bits

    def report(self, params: dict[str, Array]) -> dict[str, Any]:
        return {STEP: float(params[STEP][0])}

    def to_arrays(self, params: dict[str, Array]) -> dict[str, np.ndarray]:
        """Returns the arrays of a file; the step grows until it fits the budget."""
        step = float(params[STEP][0])
        planes = {n: x for n, x in params.items() if n != STEP}
        return self._fitting(planes, step, step, unit=step)

    def _in_steps(self, planes, step):
        count = len(planes["plane_0"])
        return {n: x / step for n, x in planes.items()} | {STEP: jnp.full(count, step, jnp.float32)}

    def _packed(self, planes, step, unit=1.0):
        """Returns a file's arrays, regardless of the budget; `unit`: of planes, in gray levels."""
        ordered = (planes[f"plane_{i}"] for i in range(self.channels))
        codes = [rounded(jnp.asarray(x) * (unit / step)) for x in ordered]
        return self.pack([np.asarray(plane, np.int32) for plane in codes], step)

    def _guess(self, planes) -> float:
        """Returns the step at which evenly spaced images fit their share of the budget."""
        every = self.num_images // FEW
        if every < 2:
            return FIRST_STEP
        few = {name: plane[::every] for name, plane in planes.items()}
        count = -(-self.num_images // every)
        share = (self.most_bytes - self.overhead_bytes) * count // self.num_images
        kind = dataclasses.replace(
            self, images_per_class=count, bytes_per_class=self.overhead_bytes + share, num_classes=1
        )
        return float(kind._fitting(few, FIRST_STEP, LEAST_STEP)[STEP][0])

    def _fitting(self, planes, step, least, unit=1.0) -> dict[str, np.ndarray]:
        """Returns the arrays of the least step found, from `least`, that fits the budget."""
        best, over, fits = None, 0.0, np.inf
        for _ in range(TRIES):
            step = float(np.float32(np.clip(step, least, MOST_STEP)))
            arrays = self._packed(planes, step, unit)
            used = self.used_bytes(arrays)
            if used <= self.most_bytes:
                best, fits = arrays, step
                if step == least or used >= FILLED * self.most_bytes:
                    break
            else:
                over = step
                if step == MOST_STEP:
                    break
            # Bytes fall roughly as the step grows.
            share = (used - self.overhead_bytes) / (self.most_bytes - self.overhead_bytes)
            wanted = step * 1.003 * share
            inside = over < wanted < fits
            step = wanted if inside else math.sqrt(max(over, least) * min(fits, MOST_STEP))
        if best is None:
            raise self.too_few_bytes(used, "at the largest step")
        return best


@functools.partial(jax.jit, static_argnums=0)
def _levels(kind, images):
    return kind.planes_of(images)


def rounded(x: Float[Array, "*s 8 8"]) -> Float[Array, "*s 8 8"]:
    """Returns codes: the nearest ones of coefficients that are made smaller by the dead zone."""
    return jnp.clip(jnp.round(towards_zero(x)), -LARGEST, LARGEST)


def towards_zero(x: Float[Array, "*s 8 8"]) -> Float[Array, "*s 8 8"]:
    """Returns coefficients, smaller by the dead zone."""
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - DEADZONE, 0)


@jax.custom_jvp
def on_codes(x: Float[Array, "*s 8 8"]) -> Float[Array, "*s 8 8"]:
    """Returns the values of the codes; the derivative is 1."""
    return dct.values_of(rounded(x))


@on_codes.defjvp
def _straight_through(primals, tangents):
    return on_codes(*primals), *tangents
