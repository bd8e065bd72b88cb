"""Custom calls of the rasterizer."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32

from gsdd_jax.core import native
from gsdd_jax.core.native import like
from gsdd_jax.rasterizer import sharding
from gsdd_jax.rasterizer.limits import MAX_CALL_CHANNELS
from gsdd_jax.rasterizer.ragged_vmap import (
    in_an_image,
    merge_gaussians,
    merge_images,
    merge_offsets,
    ragged_vmap,
    split_images,
)

TARGETS = tuple(
    f"gsdd_rasterize{ragged}{gradient}"
    for ragged in ("", "_ragged")
    for gradient in ("", "_gradient")
)
# Words per Gaussian of the scratch arrays of the CUDA kernels: a box and a record
# (kBoxBytes and kRecordBytes in xla_ops/rasterizer/cuda_kernel.h).
ROOM_ON_CUDA = (2, 16)


class Settings(NamedTuple):
    """Static arguments of a rasterization (paper, section 3: anti-aliasing)."""

    height: int
    width: int
    samples_per_side: int
    prefilter: bool
    min_weight: float
    clip_gradient: str


def forward(
    settings: Settings,
    offsets: Int32[Array, "images_plus_1"] | None,
    means: Float32[Array, "*b n 2"],
    cholesky: Float32[Array, "*b n 3"],
    colors: Float32[Array, "*b n c"],
    opacities: Float32[Array, "*b n"],
) -> Float32[Array, "*images h w c"]:
    """Renders images by the custom call.

    Axes of `vmap` join the leading ones, so that one call renders all images. Devices that
    share the leading axes each make their own call. Ragged batches are merged into one; of a dense
    batch the offsets are None.
    """

    def images(colors):
        parameters = (means, cholesky, colors, opacities)
        if offsets is None:
            return _dense_forward(settings, *parameters)
        return _ragged_forward(settings)(offsets, *parameters)

    return jnp.concatenate([images(part) for part in _parts(_poisoned(colors))], -1)


def backward(
    settings: Settings,
    offsets: Int32[Array, "images_plus_1"] | None,
    means: Float32[Array, "*b n 2"],
    cholesky: Float32[Array, "*b n 3"],
    colors: Float32[Array, "*b n c"],
    opacities: Float32[Array, "*b n"],
    d_images: Float32[Array, "*images h w c"],
) -> tuple[Float32[Array, "..."], ...]:
    """Computes dL/d(means, cholesky, colors, opacities) from dL/dimages by the custom call."""

    def gradients(colors, d_images):
        operands = (means, cholesky, colors, opacities, d_images)
        if offsets is None:
            return _dense_backward(settings, *operands)
        return _ragged_backward(settings)(offsets, *operands)

    parts = map(gradients, _parts(_poisoned(colors)), _parts(d_images))
    d_means, d_cholesky, d_colors, d_opacities = zip(*parts, strict=True)
    total = functools.partial(functools.reduce, jnp.add)
    return total(d_means), total(d_cholesky), jnp.concatenate(d_colors, -1), total(d_opacities)


def _parts(array):
    most = MAX_CALL_CHANNELS
    return [array[..., at : at + most] for at in range(0, array.shape[-1], most)]


def _poisoned(colors):
    """Makes all channels of a color NaN if one of them is not finite.

    The calls of the other channels need that to make the whole image NaN.
    """
    if colors.shape[-1] <= MAX_CALL_CHANNELS:
        return colors
    return jnp.where(jnp.isfinite(colors).all(-1, keepdims=True), colors, jnp.nan)


PARAMETERS = "... n u, ... n l, ... n c, ... n"


@functools.partial(sharding.per_image, f"{PARAMETERS} -> ... h w c", tuple("nulchw"))
def _dense_forward(settings, means, cholesky, colors, opacities):
    shape = (*opacities.shape[:-1], settings.height, settings.width, colors.shape[-1])
    outputs = (like(means, shape),)
    return _call("gsdd_rasterize", outputs, settings, means, cholesky, colors, opacities)[0]


@functools.partial(sharding.per_image, f"{PARAMETERS}, ... h w c -> {PARAMETERS}", tuple("nulchw"))
def _dense_backward(settings, *parameters_and_cotangent):
    outputs = tuple(like(p, p.shape) for p in parameters_and_cotangent[:-1])
    return _call("gsdd_rasterize_gradient", outputs, settings, *parameters_and_cotangent)


def _ragged_forward(settings):
    def call(offsets, *parameters):
        images = offsets.shape[0] - 1
        shape = (images, settings.height, settings.width, parameters[2].shape[-1])
        outputs = (like(parameters[0], shape),)
        return _call("gsdd_rasterize_ragged", outputs, settings, *parameters, offsets=offsets)[0]

    def together(call, offsets, *parameters):
        size, count = parameters[-1].shape
        images = call(merge_offsets(offsets, count), *map(merge_gaussians, parameters))
        return split_images(images, size)

    return ragged_vmap(call, together)


def _ragged_backward(settings):
    def call(offsets, *parameters_and_cotangent):
        outputs = tuple(like(p, p.shape) for p in parameters_and_cotangent[:-1])
        target = "gsdd_rasterize_ragged_gradient"
        return _call(target, outputs, settings, *parameters_and_cotangent, offsets=offsets)

    def together(call, offsets, *parameters_and_cotangent):
        *parameters, d_images = parameters_and_cotangent
        count = parameters[-1].shape[1]
        gradients = call(
            merge_offsets(offsets, count), *map(merge_gaussians, parameters), merge_images(d_images)
        )
        inside = in_an_image(offsets, count)  # the other gradients are undefined

        def of_batches(gradient, parameter):
            seen = inside.reshape(*inside.shape, *[1] * (parameter.ndim - 2))
            return jnp.where(seen, gradient.reshape(parameter.shape), 0)

        return tuple(map(of_batches, gradients, parameters))

    return ragged_vmap(call, together)


def _call(target, outputs, settings, *arrays, offsets=None):
    opacities = arrays[3]
    room = [like(opacities, (*opacities.shape, n), np.uint32) for n in ROOM_ON_CUDA]

    def call(results, *operands):
        made = native.call(
            target,
            results,
            *operands,
            samples_per_side=np.int64(settings.samples_per_side),
            prefilter=settings.prefilter,
            min_weight=np.float64(settings.min_weight),
            pass_clipped=settings.clip_gradient == "pass",
        )
        return tuple(made)[: len(outputs)]

    operands = arrays if offsets is None else (offsets, *arrays)
    return lax.platform_dependent(
        *operands,
        default=functools.partial(call, outputs),
        cuda=functools.partial(call, (*outputs, *room)),
    )
