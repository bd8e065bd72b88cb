"""`rasterize` and `rasterize_ragged`: Gaussians to images, differentiable, on every platform."""

from __future__ import annotations

import functools
import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float, Integer

from gsdd_jax.core import native
from gsdd_jax.formats.gaussian import CLIP_GRADIENTS
from gsdd_jax.rasterizer import calls, reference, reverse_only, sharding
from gsdd_jax.rasterizer.calls import Settings
from gsdd_jax.rasterizer.limits import (
    MAX_CALL_ELEMENTS,
    MAX_CALL_GAUSSIANS,
    MAX_CALL_SIDE,
    MAX_SAMPLES_PER_SIDE,
)

BACKENDS = ("auto", "native", "reference")
TYPES = ("bfloat16", "float16", "float32", "float64")  # of parameters


def rasterize(
    means: Float[Array | np.ndarray, "*b n 2"],
    cholesky: Float[Array | np.ndarray, "*b n 3"],
    colors: Float[Array | np.ndarray, "*b n c"],
    opacities: Float[Array | np.ndarray, "*b n"],
    *,
    height: int,
    width: int,
    samples_per_side: int = 2,
    prefilter: bool = True,
    min_weight: float = 1 / 255,
    clip_gradient: str = "stop",
    backend: str = "auto",
) -> Float[Array, "*b h w c"]:
    """Renders images as plain sums of 2-D Gaussians (section 3.2 of the paper).

    A sample point p gets the sum of w_n c_n over the Gaussians, w = min(1, opacity exp(-sigma)),
    sigma = (p - x)^T (L L^T + I/12)^-1 (p - x) / 2; a weight below `min_weight` is exactly 0. A
    pixel is the mean of its sample points. Works under `jit`, `vmap`, `grad`, `scan`,
    `jax.checkpoint` and `shard_map`. The native call is differentiable once, in reverse mode, and
    says so (TypeError) where more is asked of it; the reference has all derivatives.

    The derivative is that of the formula at fixed supports: a weight below `min_weight` has none,
    so a Gaussian of negative opacity has no gradient, nor one of opacity 0 unless `min_weight` is
    0. `jax.test_util.check_grads(render, parameters, order=1, modes=["rev"])` agrees where no
    weight meets a threshold: with `min_weight=0` and opacities between 0 and 1.

    `jax.export` takes programs with it, of symbolic leading axes too, where its safety check is
    told the calls' names:
    `disabled_checks=[DisabledSafetyCheck.custom_call(name) for name in calls.TARGETS]`, of
    `gsdd_jax.rasterizer.calls`. A process that runs one imports this function first, which
    registers the calls.

    Images that are sharded over devices along their leading axes, by `jit`'s inputs or on an
    explicit mesh, are rendered and differentiated where they lie. Every other axis is gathered.

    To float32's rounding this holds for parameters to 1e9 in size and a min_weight of 0 or from
    1e-37 on; larger numbers may overflow. Without the pre-filter the gradients of a Gaussian
    thinner than a hundredth of a pixel lose digits, more of them in the reference than natively.

    Parameters are of bfloat16, float16, float32 or float64, also of several, and a gradient has its
    parameter's type. They are computed with in float32, and by backend="reference" in float64 where
    one is of float64 (`jax_enable_x64`).

    Args:
      means: (u, v) in [-1, 1]: pixel position x = width (u + 1) / 2, y = height (v + 1) / 2; pixel
        (row i, column j) covers [j, j + 1) x [i, i + 1).
      cholesky: (l11, l21, l22), in pixels, of L = [[l11 + 1/2, 0], [l21, l22 + 1/2]].
      colors: any number of channels C, unbounded; the native call is made once for each 4 of them.
      opacities: unbounded; no sigmoid is applied.
      height, width: of the images, in pixels, to 65,536; 2^40 elements in all.
      samples_per_side: S; a pixel is the mean of S x S sample points at ((k + 1/2) / S).
      prefilter: adds I/12, the variance of a one-pixel box, to every covariance (equation 9).
      min_weight: in [0, 1).
      clip_gradient: of a weight that is clipped at 1: "stop" is the derivative of the minimum, 0;
        "pass" lets it through as if the weight were not clipped, as the published operator does.
      backend: "native" (the custom call, on the platforms it was built for), "reference" (plain
        `jax.numpy`) or "auto": native where it was built, else reference, decided per platform
        when the computation is lowered; also the reference, with a warning, where a GPU of this
        machine is of a compute capability that the call has no code for.

    Returns:
      Images in the units of `colors`, of the type that was computed with. A NaN or infinite
      parameter makes its whole image NaN, and no other.

    Raises:
      ValueError: for a wrong shape, dtype, size or choice; the message names the argument.
      UsageError: for a GSDD_CPU in the environment that this machine lacks (see BUILD.md).
    """
    parameters = _check_arrays(backend, means, cholesky, colors, opacities)
    settings = _check_settings(
        height, width, samples_per_side, prefilter, min_weight, clip_gradient
    )
    _check_elements(settings, math.prod(parameters[-1].shape[:-1]), parameters[2].shape[-1])
    return _rasterize(backend, settings, None, parameters)


def rasterize_ragged(
    means: Float[Array | np.ndarray, "n 2"],
    cholesky: Float[Array | np.ndarray, "n 3"],
    colors: Float[Array | np.ndarray, "n c"],
    opacities: Float[Array | np.ndarray, "n"],
    offsets: Integer[Array | np.ndarray, "images_plus_1"],
    *,
    height: int,
    width: int,
    samples_per_side: int = 2,
    prefilter: bool = True,
    min_weight: float = 1 / 255,
    clip_gradient: str = "stop",
    backend: str = "auto",
) -> Float[Array, "images h w c"]:
    """`rasterize` for images that own different numbers of Gaussians, all of them in one array.

    Image b is the sum of Gaussians offsets[b] to offsets[b + 1], which may be none; it has the bits
    that `rasterize` gives for them. Gaussians outside all images get a gradient of zero. Arrays
    sharded over devices are gathered first; `shard_map` renders parts of a batch where they lie.

    Args:
      means, cholesky, colors, opacities: as of `rasterize`, with a single leading axis.
      offsets: not decreasing, from 0 or more to at most n; B + 1 integers for B images.
      height, width, samples_per_side, prefilter, min_weight, clip_gradient, backend: as of
        `rasterize`. The reference renders every Gaussian to an image of its own: it is for small
        batches.

    Raises:
      ValueError: as `rasterize`, and for offsets that are out of order or range. Where they are
        known only at run time, the native call on a CPU raises `jax.errors.JaxRuntimeError`, and
        on other platforms and in the reference the images between such offsets are NaN.
    """
    parameters = _check_arrays(backend, means, cholesky, colors, opacities)
    if parameters[-1].ndim != 1:
        raise ValueError(f"opacities: expected shape [N], got {parameters[-1].shape}")
    count = parameters[-1].shape[0]
    if _exceeds(count, MAX_CALL_GAUSSIANS - 1):
        raise ValueError(
            f"opacities: expected fewer than {MAX_CALL_GAUSSIANS} Gaussians, got {count}"
        )
    settings = _check_settings(
        height, width, samples_per_side, prefilter, min_weight, clip_gradient
    )
    offsets = _check_offsets(offsets, count)
    _check_elements(settings, offsets.shape[0] - 1, parameters[2].shape[-1])
    return _rasterize(backend, settings, offsets, parameters)


def _check_settings(height, width, samples_per_side, prefilter, min_weight, clip_gradient):
    settings = Settings(
        _check_size("height", height, 1, MAX_CALL_SIDE),
        _check_size("width", width, 1, MAX_CALL_SIDE),
        _check_size("samples_per_side", samples_per_side, 1, MAX_SAMPLES_PER_SIDE),
        bool(prefilter),
        float(min_weight),
        clip_gradient,
    )
    if not 0 <= settings.min_weight < 1:
        raise ValueError(f"min_weight: expected a number in [0, 1), got {min_weight}")
    if clip_gradient not in CLIP_GRADIENTS:
        raise ValueError(
            f"clip_gradient: expected one of {', '.join(CLIP_GRADIENTS)}, got {clip_gradient!r}"
        )
    return settings


def _exceeds(size, limit):
    """Whether a size is too large; a symbolic one is checked by the call, which knows it."""
    return not is_symbolic_dim(size) and size > limit


def _check_elements(settings, num_images, channels):
    elements = num_images * settings.height * settings.width * channels
    if _exceeds(elements, MAX_CALL_ELEMENTS):
        raise ValueError(
            f"height, width: expected images of at most 2^40 elements in all, got {num_images} of "
            f"{settings.height} x {settings.width} x {channels}"
        )


def _check_offsets(offsets, count):
    # What is known is checked before JAX sees it, which would cut 64 bits to 32.
    known = None if isinstance(offsets, jax.core.Tracer) else np.asarray(offsets)
    array = offsets if known is None else known
    if array.ndim != 1 or 0 in array.shape or not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"offsets: expected integers of shape [B + 1], got {array.dtype} of {array.shape}"
        )
    if known is None:
        if jnp.iinfo(array.dtype).max > MAX_CALL_GAUSSIANS:  # no cast may wrap into the range
            low = -1 if jnp.issubdtype(array.dtype, jnp.signedinteger) else 0
            array = jnp.clip(array, low, count + 1)
    elif known[0] < 0 or known[-1] > count or (known[1:] < known[:-1]).any():
        raise ValueError(f"offsets: expected not to decrease, from 0 to {count}, got {known}")
    return jnp.asarray(array, jnp.int32)


def _rasterize(backend, settings, offsets, parameters):
    num_batch = parameters[-1].ndim - 1
    render = functools.partial(_render, settings, backend)
    return sharding.on_explicit_mesh(render, num_batch, offsets, *parameters)


def _render(settings, backend, offsets, *parameters):
    if backend == "reference":
        return _reference(settings, offsets, *parameters)
    native.check_environment()
    if backend == "native" and not native.PLATFORMS:
        raise ValueError(
            "backend: 'native' was not built in this installation (see BUILD.md); "
            "use 'auto' or 'reference'"
        )
    offsets, *parameters = native.vary_alike((offsets, *parameters))
    with reverse_only.explain_forward_mode():
        parameters = map(reverse_only.forbid_forward_mode, parameters)
        return _custom(settings, backend == "native", offsets, *parameters)


def _check_arrays(backend, means, cholesky, colors, opacities):
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    arrays = {"means": means, "cholesky": cholesky, "colors": colors, "opacities": opacities}
    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
    if arrays["opacities"].ndim < 1:
        raise ValueError("opacities: expected shape [..., N], got a scalar")
    batch = arrays["opacities"].shape
    for name, last in (("means", 2), ("cholesky", 3), ("colors", None)):
        shape = arrays[name].shape
        expected = f"expected shape [{', '.join(map(str, batch))}, {last or 'C'}]"
        if shape[:-1] != batch or len(shape) < 2:
            raise ValueError(f"{name}: {expected} to match opacities {list(batch)}, got {shape}")
        if last and shape[-1] != last:
            raise ValueError(f"{name}: {expected}, got {shape}")
    if 0 in arrays["colors"].shape[-1:]:
        raise ValueError("colors: expected at least 1 channel, got 0")
    for name, array in arrays.items():
        if array.dtype.name not in TYPES:
            raise ValueError(f"{name}: expected one of {', '.join(TYPES)}, got {array.dtype}")
    exact = backend == "reference" and any(a.dtype == jnp.float64 for a in arrays.values())
    return tuple(a.astype(jnp.float64 if exact else jnp.float32) for a in arrays.values())


def _check_size(name: str, value: object, low: int, high: int | None) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name}: expected an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        limit = f"from {low} to {high}" if high else f"at least {low}"
        raise ValueError(f"{name}: expected {limit}, got {value}")
    return int(value)


def _per_platform(always_native: bool, native_function, reference_function, *arguments):
    """Native where it was built, else the reference, chosen when the computation is lowered."""
    if always_native:
        return native_function(*arguments)
    return native.where_built(native_function, reference_function, *arguments)


@functools.partial(jax.jit, static_argnums=0)  # one program, also where nothing else is compiled
def _reference(settings, offsets, *parameters):
    if offsets is None:
        return reference.rasterize(settings, *parameters)
    return reference.rasterize_ragged(settings, offsets, *parameters)


def _reference_backward(settings, offsets, *parameters_and_cotangent):
    *parameters, d_images = parameters_and_cotangent
    _, pull_back = jax.vjp(functools.partial(_reference, settings, offsets), *parameters)
    return pull_back(d_images)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _custom(settings, always_native, offsets, means, cholesky, colors, opacities):
    return _per_platform(
        always_native,
        functools.partial(calls.forward, settings),
        functools.partial(_reference, settings),
        offsets,
        means,
        cholesky,
        colors,
        opacities,
    )


def _custom_forward(settings, always_native, offsets, *parameters):
    return _custom(settings, always_native, offsets, *parameters), (offsets, parameters)


def _custom_backward(settings, always_native, residuals, d_images):
    offsets, parameters = residuals
    *parameters, d_images = reverse_only.forbid_derivatives((*parameters, jnp.asarray(d_images)))
    gradients = _per_platform(
        always_native,
        functools.partial(calls.backward, settings),
        functools.partial(_reference_backward, settings),
        offsets,
        *parameters,
        d_images,
    )
    return (None, *gradients)


_custom.defvjp(_custom_forward, _custom_backward)
