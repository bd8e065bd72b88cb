"""2-D convolution whose derivatives of every order are fast convolutions too.

A convolution is linear in the image and in the kernel, so all its derivatives are compositions
of three maps: convolution, image gradient, kernel gradient. Each map has the other two as its
derivative. Each has one implementation for CPUs and one for other devices, chosen when the
program is compiled.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Array, Float

from gsdd_jax.core import native
from gsdd_jax.ops import folds, patches, shifts, winograd

Method = Literal["auto", "lax"]
MIN_CHANNELS = 16  # Winograd's transforms cost more than they save below this
MAX_DIRECT_CHANNELS = 64  # of the wider side: Winograd is faster than the custom call above this


@dataclass(frozen=True)
class _Geometry:
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: int
    padding: int
    precision: lax.Precision | None


def _lax(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (geometry.stride,) * 2,
        ((geometry.padding,) * 2,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=geometry.precision,
    )


def _lax_image_gradient(geometry: _Geometry, g: Array, kernel: Array) -> Array:
    image = jax.ShapeDtypeStruct((g.shape[0], *geometry.image, kernel.shape[2]), g.dtype)
    return jax.linear_transpose(lambda x: _lax(geometry, x, kernel), image)(g)[0]


def _lax_kernel_gradient(geometry: _Geometry, x: Array, g: Array) -> Array:
    kernel = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda k: _lax(geometry, x, k), kernel)(g)[0]


def _form(geometry: _Geometry, dtype: jnp.dtype, channels: tuple[int, int]) -> str:
    """Chooses the CPU implementation from shapes and from the calls that were built.

    A convolution and its gradients thus agree. This function never returns "lax":
    benchmarks/scale.py patches it to, in order to compile the program of another device.
    """
    side, other = geometry.kernel
    call = "cpu" in native.PLATFORMS and dtype == jnp.float32 and side == other
    if call and geometry.stride == 2 and side > 3:
        return "folded"
    call = call and geometry.stride == 1 and 1 < side > geometry.padding
    few = max(channels) <= MAX_DIRECT_CHANNELS or min(channels) < MIN_CHANNELS
    if call and (few or side > 3):
        return "direct"
    if geometry.stride == 1 and channels[0] < MIN_CHANNELS:
        return "patches"
    # The transforms would lose bfloat16's few digits.
    fits = (geometry.stride, geometry.padding) == (1, 1) and jnp.finfo(dtype).bits >= 32
    fits = fits and min(channels) >= MIN_CHANNELS and max(geometry.image) > winograd.TILE
    if fits and winograd.applies(geometry.image, geometry.kernel):
        return "winograd"
    return "shifts"


def _direct(x: Array, kernel: Array, padding: int) -> Array:
    height, width = (side + 2 * padding - len(kernel) + 1 for side in x.shape[1:3])
    shape = (len(x), height, width, kernel.shape[3])
    return native.call("gsdd_conv", native.like(x, shape), x, kernel)


def _direct_image_gradient(g: Array, kernel: Array, padding: int) -> Array:
    return _direct(g, kernel[::-1, ::-1].swapaxes(2, 3), len(kernel) - 1 - padding)


def _direct_kernel_gradient(x: Array, g: Array, side: int) -> Array:
    shape = (side, side, x.shape[3], g.shape[3])
    return native.call("gsdd_conv_kernel_gradient", native.like(x, shape), x, g)


def _cpu(geometry: _Geometry, x: Array, kernel: Array) -> Array:
    form = _form(geometry, x.dtype, kernel.shape[2:])
    if form == "direct":
        return _direct(x, kernel, geometry.padding)
    if form == "folded":
        return _direct(folds.image(x, len(kernel), geometry.padding), folds.kernel(kernel), 0)
    if form == "winograd":
        return winograd.forward(x, kernel)
    if form == "patches":
        return patches.forward(x, kernel, geometry.padding)
    if form == "shifts":
        return shifts.forward(x, kernel, geometry.stride, geometry.padding)
    return _lax(geometry, x, kernel)


def _cpu_image_gradient(geometry: _Geometry, g: Array, kernel: Array) -> Array:
    form = _form(geometry, g.dtype, kernel.shape[2:])
    if form == "direct":
        return _direct_image_gradient(g, kernel, geometry.padding)
    if form == "folded":
        image = jax.ShapeDtypeStruct((len(g), *geometry.image, kernel.shape[2]), g.dtype)
        fold = lambda x: folds.image(x, len(kernel), geometry.padding)
        gradient = _direct_image_gradient(g, folds.kernel(kernel), 0)
        return jax.linear_transpose(fold, image)(gradient)[0]
    if form == "winograd":
        return winograd.image_gradient(g, kernel)
    if form == "patches":
        return patches.image_gradient(g, kernel, geometry.padding)
    if form == "shifts":
        return shifts.image_gradient(g, kernel, geometry.image, geometry.stride, geometry.padding)
    return _lax_image_gradient(geometry, g, kernel)


def _cpu_kernel_gradient(geometry: _Geometry, x: Array, g: Array) -> Array:
    form = _form(geometry, x.dtype, (x.shape[-1], g.shape[-1]))
    if form == "direct":
        return _direct_kernel_gradient(x, g, geometry.kernel[0])
    if form == "folded":
        kernel = jax.ShapeDtypeStruct((*geometry.kernel, x.shape[3], g.shape[3]), x.dtype)
        images = folds.image(x, geometry.kernel[0], geometry.padding)
        gradient = _direct_kernel_gradient(images, g, folds.side(geometry.kernel[0]))
        return jax.linear_transpose(folds.kernel, kernel)(gradient)[0]
    if form == "winograd":
        return winograd.kernel_gradient(x, g)
    if form == "patches":
        return patches.kernel_gradient(x, g, geometry.kernel, geometry.padding)
    if form == "shifts":
        return shifts.kernel_gradient(x, g, geometry.kernel, geometry.stride, geometry.padding)
    return _lax_kernel_gradient(geometry, x, g)


def _by_platform(cpu: Callable, default: Callable) -> Callable:
    def function(geometry: _Geometry, *operands: Array) -> Array:
        # Under vmap, networks run one after the other. A batched kernel would be a grouped
        # convolution, which is slower on every device: cuDNN has no fast weight gradient for
        # groups, and XLA turns it into a grouped convolution with windows of whole images.
        @sequential_vmap
        def one_network(*operands: Array) -> Array:
            return lax.platform_dependent(
                *operands,
                cpu=functools.partial(cpu, geometry),
                default=functools.partial(default, geometry),
            )

        return one_network(*operands)

    return jax.custom_vjp(function, nondiff_argnums=(0,))


_forward = _by_platform(_cpu, _lax)
_image_gradient = _by_platform(_cpu_image_gradient, _lax_image_gradient)
_kernel_gradient = _by_platform(_cpu_kernel_gradient, _lax_kernel_gradient)

_forward.defvjp(
    lambda geometry, x, kernel: (_forward(geometry, x, kernel), (x, kernel)),
    lambda geometry, saved, g: (
        _image_gradient(geometry, g, saved[1]),
        _kernel_gradient(geometry, saved[0], g),
    ),
)
_image_gradient.defvjp(
    lambda geometry, g, kernel: (_image_gradient(geometry, g, kernel), (g, kernel)),
    lambda geometry, saved, dx: (
        _forward(geometry, dx, saved[1]),
        _kernel_gradient(geometry, dx, saved[0]),
    ),
)
_kernel_gradient.defvjp(
    lambda geometry, x, g: (_kernel_gradient(geometry, x, g), (x, g)),
    lambda geometry, saved, dk: (
        _image_gradient(geometry, saved[1], dk),
        _forward(geometry, saved[0], dk),
    ),
)


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c o"],
    *,
    stride: int = 1,
    padding: int = 1,
    method: Method = "auto",
    precision: lax.Precision | None = None,
) -> Float[Array, "b oh ow o"]:
    """Convolves images with a kernel (cross-correlation, as in all deep-learning libraries).

    Args:
        stride, padding: pixels, equal in both directions and on every side.
        method: "auto" is the fastest implementation for the device, with reverse-mode derivatives
            of any order; "lax" is `jax.lax.conv_general_dilated`, which adds forward mode.
        precision: of the products, if the device has a choice.

    Raises ValueError if the dtypes differ.
    """
    if x.dtype != kernel.dtype:
        raise ValueError(
            f"images are {x.dtype} but the kernel is {kernel.dtype}; cast one to the other"
        )
    geometry = _Geometry(x.shape[1:3], kernel.shape[:2], stride, padding, precision)
    sides = zip(geometry.image, geometry.kernel, strict=True)
    is_empty = any(side + 2 * padding < reach for side, reach in sides)  # there is no output
    if method == "lax" or is_empty:
        return _lax(geometry, x, kernel)
    return _forward(geometry, *native.vary_alike((x, kernel)))
