"""Rasterizes Gaussians, differentiably, on every platform."""

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
TYPES = ("bfloat16", "float16", "float32", "float64")  # dtypes of parameters


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
    """Renders images as plain sums of 2-D Gaussians (paper, section 3.2).

    A sample point p gets the sum over Gaussians of w_n c_n. The weight is
    w = min(1, opacity exp(-sigma)) with sigma = (p - x)^T (L L^T + I/12)^-1 (p - x) / 2. Weights
    below `min_weight` are exactly 0. A pixel is the mean of its sample points.

    Works under `jit`, `vmap`, `grad`, `scan`, `jax.checkpoint` and `shard_map`. The native call is
    differentiable once, in reverse mode; anything else raises TypeError. The reference has all
    derivatives.

    The derivative holds the supports fixed: weights below `min_weight` have none. A Gaussian of
    negative opacity therefore has no gradient, nor one of opacity 0 unless `min_weight` is 0.
    `jax.test_util.check_grads(render, parameters, order=1, modes=["rev"])` agrees if no weight
    meets a threshold: `min_weight=0` and opacities between 0 and 1.

    `jax.export` takes such programs, also with symbolic leading axes, given
    `disabled_checks=[DisabledSafetyCheck.custom_call(name) for name in calls.TARGETS]` of
    `gsdd_jax.rasterizer.calls`. A process that runs one must import this function, which
    registers the calls.

    Images sharded along their leading axes, by `jit`'s inputs or on an explicit mesh, are rendered
    and differentiated where they are. All other axes are gathered.

    Results are accurate to float32 rounding for parameters up to 1e9 and a `min_weight` of 0 or at
    least 1e-37; larger numbers may overflow. Without pre-filter, gradients of Gaussians thinner
    than 0.01 pixels lose digits, more in the reference than natively.

    Parameters may be bfloat16, float16, float32 or float64, also mixed; a gradient has the type of
    its parameter. Computation is in float32, or in float64 with backend="reference" and a float64
    parameter (`jax_enable_x64`).

    Args:
      means: (u, v) in [-1, 1]: pixel position x = width (u + 1) / 2, y = height (v + 1) / 2; pixel
        (row i, column j) covers [j, j + 1) x [i, i + 1).
      cholesky: (l11, l21, l22), in pixels, of L = [[l11 + 1/2, 0], [l21, l22 + 1/2]].
      colors: any number of channels C, unbounded; each native call takes 4 channels.
      opacities: unbounded; no sigmoid is applied.
      height, width: pixels, at most 65,536; the images have at most 2^40 elements.
      samples_per_side: S; a pixel is the mean of S x S sample points at ((k + 1/2) / S).
      prefilter: adds I/12, the variance of a one-pixel box, to every covariance (equation 9).
      min_weight: in [0, 1).
      clip_gradient: gradient of weights clipped at 1: "stop" is the derivative of the minimum, 0;
        "pass" ignores the clipping, as the published operator does.
      backend: "native" (the custom call), "reference" (`jax.numpy`) or "auto": native if built for
        the platform, else reference, decided when the computation is lowered. "auto" warns and
        takes the reference if the call has no code for a GPU of this machine.

    Returns:
      Images in the units of `colors` and the type of the computation. A NaN or infinite parameter
      makes its whole image NaN, and no other.

    Raises:
      ValueError: for a wrong shape, dtype, size or choice; the message names the argument.
      UsageError: if GSDD_CPU names an instruction set that this machine lacks (see BUILD.md).
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
    """Renders images with different numbers of Gaussians, stored in one array.

    Image b is the sum of Gaussians offsets[b] to offsets[b + 1], possibly none, with the same bits
    as `rasterize`. Gaussians outside all images have gradient 0. Sharded arrays are gathered first;
    `shard_map` renders parts of a batch on their own devices.

    Args:
      means, cholesky, colors, opacities: as for `rasterize`, with a single leading axis.
      offsets: B + 1 integers for B images, non-decreasing, from 0 or more to at most n.
      height, width, samples_per_side, prefilter, min_weight, clip_gradient, backend: as for
        `rasterize`. The reference renders each Gaussian separately: for small batches only.

    Raises:
      ValueError: as `rasterize`, and for offsets out of order or out of range. For offsets known
        only at run time, the native CPU call raises `jax.errors.JaxRuntimeError`; other platforms
        and the reference make the affected images NaN.
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
        _check_size("height", height, MAX_CALL_SIDE),
        _check_size("width", width, MAX_CALL_SIDE),
        _check_size("samples_per_side", samples_per_side, MAX_SAMPLES_PER_SIDE),
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
    """Returns whether a size is too large; the call itself checks symbolic sizes."""
    return not is_symbolic_dim(size) and size > limit


def _check_elements(settings, num_images, channels):
    elements = num_images * settings.height * settings.width * channels
    if _exceeds(elements, MAX_CALL_ELEMENTS):
        raise ValueError(
            f"height, width: expected images of at most 2^40 elements in all, got {num_images} of "
            f"{settings.height} x {settings.width} x {channels}"
        )


def _check_offsets(offsets, count):
    # Concrete offsets are validated first: JAX would truncate 64 bits to 32.
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


def _check_size(name: str, value: object, most: int) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"{name}: expected an integer, got {value!r}")
    if not 1 <= value <= most:
        raise ValueError(f"{name}: expected from 1 to {most}, got {value}")
    return int(value)


def _per_platform(always_native: bool, native_function, reference_function, *arguments):
    """Chooses the native call if built, else the reference, when the program is lowered."""
    if always_native:
        return native_function(*arguments)
    return native.where_built(native_function, reference_function, *arguments)


@functools.partial(jax.jit, static_argnums=0)  # compiled also in eager mode
def _reference(settings, offsets, *parameters):
    if offsets is None:
        return reference.rasterize(settings, *parameters)
    return reference.rasterize_ragged(settings, offsets, *parameters)


def _reference_backward(settings, offsets, *parameters_and_cotangent):
    *parameters, d_images = parameters_and_cotangent
    _, pull_back = jax.vjp(functools.partial(_reference, settings, offsets), *parameters)
    return pull_back(d_images)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _custom(settings, always_native, *operands):
    return _per_platform(
        always_native,
        functools.partial(calls.forward, settings),
        functools.partial(_reference, settings),
        *operands,
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
