"""The rasterizer's custom calls."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, Int32

from gsdd_jax.core.native import like
from gsdd_jax.rasterizer import sharding


class Settings(NamedTuple):
    """The static arguments of a rasterization (section 3 of the paper: anti-aliasing)."""

    height: int
    width: int
    samples_per_side: int
    prefilter: bool
    min_weight: float
    clip_gradient: str


def _attributes(settings: Settings) -> dict:
    return {
        "samples_per_side": np.int64(settings.samples_per_side),
        "prefilter": bool(settings.prefilter),
        "min_weight": np.float64(settings.min_weight),
        "pass_clipped": settings.clip_gradient == "pass",
    }


def forward(
    settings: Settings,
    offsets: Int32[Array, "images_plus_1"] | None,
    means: Float32[Array, "*b n 2"],
    cholesky: Float32[Array, "*b n 3"],
    colors: Float32[Array, "*b n c"],
    opacities: Float32[Array, "*b n"],
) -> Float32[Array, "*images h w c"]:
    """Renders by the custom call, a ragged batch where there are offsets.

    Axes that are vmapped over join the leading ones, so it stays one call, and devices that share
    them each make their own; a ragged batch, which has none, is called once for each element.
    """
    parameters = (means, cholesky, colors, opacities)
    if offsets is None:
        return _dense_forward(settings, *parameters)
    shape = (len(offsets) - 1, settings.height, settings.width, colors.shape[-1])
    return _call("gsdd_rasterize_ragged", like(means, shape), settings)(offsets, *parameters)


def backward(
    settings: Settings,
    offsets: Int32[Array, "images_plus_1"] | None,
    means: Float32[Array, "*b n 2"],
    cholesky: Float32[Array, "*b n 3"],
    colors: Float32[Array, "*b n c"],
    opacities: Float32[Array, "*b n"],
    d_images: Float32[Array, "*images h w c"],
) -> tuple[
    Float32[Array, "*b n 2"],
    Float32[Array, "*b n 3"],
    Float32[Array, "*b n c"],
    Float32[Array, "*b n"],
]:
    """dL/dimages -> dL/d(means, cholesky, colors, opacities), by the custom call."""
    parameters = (means, cholesky, colors, opacities)
    if offsets is None:
        return _dense_backward(settings, *parameters, d_images)
    outputs = tuple(like(means, p.shape) for p in parameters)
    call = _call("gsdd_rasterize_ragged_gradient", outputs, settings)
    return tuple(call(offsets, *parameters, d_images))


PARAMETERS = "... n u, ... n l, ... n c, ... n"


@functools.partial(sharding.per_image, f"{PARAMETERS} -> ... h w c", tuple("nulchw"))
def _dense_forward(settings, means, cholesky, colors, opacities):
    shape = (*opacities.shape[:-1], settings.height, settings.width, colors.shape[-1])
    return _call("gsdd_rasterize", like(means, shape), settings)(means, cholesky, colors, opacities)


@functools.partial(sharding.per_image, f"{PARAMETERS}, ... h w c -> {PARAMETERS}", tuple("nulchw"))
def _dense_backward(settings, *parameters_and_cotangent):
    outputs = tuple(like(p, p.shape) for p in parameters_and_cotangent[:-1])
    call = _call("gsdd_rasterize_gradient", outputs, settings)
    return tuple(call(*parameters_and_cotangent))


def _call(target, outputs, settings):
    method = "sequential" if "ragged" in target else "broadcast_all"
    call = jax.ffi.ffi_call(target, outputs, vmap_method=method)
    return functools.partial(call, **_attributes(settings))
