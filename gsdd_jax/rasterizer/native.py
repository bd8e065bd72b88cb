"""The bridge to the custom calls: registers what was built, and calls it.

`xla_ops/` builds one extension module per platform. Each holds the same targets, so one traced
`ffi_call` runs on whichever platform it is lowered for.
"""

from __future__ import annotations

import functools
import importlib
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Int32

MODULES = {"cpu": "gsdd_jax._native_cpu", "cuda": "gsdd_jax._native_cuda"}


class Settings(NamedTuple):
    """The static arguments of a rasterization (section 3 of the paper: anti-aliasing)."""

    height: int
    width: int
    samples_per_side: int
    prefilter: bool
    min_weight: float


def _register() -> tuple[str, ...]:
    built = []
    for platform, name in MODULES.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for target, handler in module.handlers.items():
            jax.ffi.register_ffi_target(
                target, handler, platform={"cpu": "cpu", "cuda": "CUDA"}[platform]
            )
        built.append(platform)
    return tuple(built)


PLATFORMS = _register()  # for which the custom calls were built


def _attributes(settings: Settings) -> dict:
    return {
        "samples_per_side": np.int64(settings.samples_per_side),
        "prefilter": bool(settings.prefilter),
        "min_weight": np.float64(settings.min_weight),
    }


def _like(array: Array, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    kind = jax.typeof(array)
    if kind.manual_axis_type.empty:
        return jax.ShapeDtypeStruct(shape, np.float32)
    # Under shard_map an output varies over the same mesh axes as what it is computed from.
    sharding = NamedSharding(kind.sharding.mesh, PartitionSpec(*[None] * len(shape)))
    return jax.ShapeDtypeStruct(
        shape, np.float32, sharding=sharding, manual_axis_type=kind.manual_axis_type
    )


def forward(
    settings: Settings,
    offsets: Int32[Array, "images_plus_1"] | None,
    means: Float32[Array, "*b n 2"],
    cholesky: Float32[Array, "*b n 3"],
    colors: Float32[Array, "*b n c"],
    opacities: Float32[Array, "*b n"],
) -> Float32[Array, "*images h w c"]:
    """Renders by the custom call, a ragged batch where there are offsets.

    Axes that are vmapped over join the leading ones, so it stays one call; a ragged batch, which
    has none, is called once for each element.
    """
    batch = opacities.shape[:-1] if offsets is None else (len(offsets) - 1,)
    shape = (*batch, settings.height, settings.width, colors.shape[-1])
    return _call("gsdd_rasterize", offsets, _like(means, shape), settings)(
        means, cholesky, colors, opacities
    )


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
    outputs = tuple(_like(means, p.shape) for p in parameters)
    call = _call("gsdd_rasterize", offsets, outputs, settings, "_gradient")
    return tuple(call(*parameters, d_images))


def _call(target, offsets, outputs, settings, suffix=""):
    attributes = _attributes(settings)
    if offsets is None:
        call = jax.ffi.ffi_call(target + suffix, outputs, vmap_method="broadcast_all")
        return functools.partial(call, **attributes)
    call = jax.ffi.ffi_call(f"{target}_ragged{suffix}", outputs, vmap_method="sequential")
    return functools.partial(call, offsets, **attributes)
