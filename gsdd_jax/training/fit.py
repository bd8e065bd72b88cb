"""Fits a parameterization to real images by mean squared error (equation 8)."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gsdd_jax.core import mesh
from gsdd_jax.parameterizations.base import Parameterization, Params
from gsdd_jax.parameterizations.gaussian import Gaussian
from gsdd_jax.rasterizer.gaussians import GaussianImages
from gsdd_jax.rasterizer.limits import MAX_CHANNELS

HALVE_EVERY = 20_000  # steps; the published runs take 50,000
IMAGE_RANGE = (-1.0, 2.0)  # includes overshoots of sharpening and interpolation, but not 0 to 255


class FitState(NamedTuple):
    """State of a fit between steps; a pytree."""

    params: Params
    optimizer: Any
    step: Int[Array, ""]


def start(
    parameterization: Parameterization,
    key: Key[Array, ""],
    images: Float[Array, "m h w c"],
    learning_rate: float,
    halve_every: int = HALVE_EVERY,
) -> FitState:
    """Returns the initial state, from the parameterization's own initial values."""
    # Copies, because the state is donated and pixels start as the images themselves.
    params = jax.tree.map(jnp.copy, parameterization.init(key, images))
    optimizer = parameterization.fit_optimizer(learning_rate, halve_every).init(params)
    return FitState(params, optimizer, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5), donate_argnums=1)
def run(
    parameterization: Parameterization,
    state: FitState,
    images: Float[Array, "m h w c"],
    learning_rate: float,
    num_steps: int,
    halve_every: int = HALVE_EVERY,
) -> tuple[FitState, Float[Array, "m"]]:
    """Runs `num_steps` steps on all images; returns each image's squared error before the last.

    The loss is the sum of the images' mean squared errors. Therefore an image's fit does not depend
    on the number of images.
    """
    optimizer = parameterization.fit_optimizer(learning_rate, halve_every)

    def squared(rendered, images):
        return ((rendered - images) ** 2).mean((1, 2, 3))

    def of_some(params, indices, images):
        return squared(parameterization.render(parameterization.select(params, indices)), images)

    divided = parameterization.by_image and len(images) % mesh.size() == 0

    def loss(params):
        if divided or mesh.size() == 1:  # images and their parameters are on the same device
            errors = squared(mesh.constrain_sharded(parameterization.render(params)), images)
        else:
            errors = mesh.map_parallel(of_some, params, jnp.arange(len(images)), images)
        return errors.sum(), errors

    def step(carry, _):
        state, _ = carry
        gradient, errors = jax.grad(loss, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = parameterization.project(optax.apply_updates(state.params, updates))
        return (FitState(params, optimizer_state, state.step + 1), errors), None

    (state, errors), _ = jax.lax.scan(
        step, (state, jnp.full(len(images), jnp.inf)), length=num_steps
    )
    return state, errors


@functools.partial(jax.jit, static_argnums=0)
def psnr(
    parameterization: Parameterization, params: Params, images: Float[Array, "m h w c"]
) -> Float[Array, "m"]:
    """Returns the peak signal-to-noise ratio of each image, in dB, for a peak of 1."""
    errors = ((parameterization.render(params) - images) ** 2).mean((1, 2, 3))
    return -10 * jnp.log10(errors)


def fit_images(
    key: Key[Array, ""],
    images: Float[Array | np.ndarray, "m h w c"],
    num_gaussians: int,
    *,
    num_steps: int,
    learning_rate: float = 0.1,
) -> tuple[GaussianImages, Float[Array, "m"]]:
    """Fits `num_gaussians` Gaussians to each image by Adam, all images at once (section 3.1).

    As in distillation, parameters are rounded to bfloat16 in every forward pass, and means are
    clipped after every step.

    Args:
      key: key of the random initial Gaussians.
      images: floating point, channels last, in [0, 1]. Overshoots of filters and normalizations are
        fitted as they are; values below -1 or above 2 are refused as another scale.
      num_gaussians: N, Gaussians per image.
      num_steps: steps of Adam; published: 50,000.
      learning_rate: learning rate of Adam; that of the means halves after 20,000 and 40,000 steps.

    Returns:
      The Gaussians (float32) and each image's PSNR in dB, rendered from bfloat16.

    Raises:
      ValueError: images are not floating point [M, H, W, C] with 1 to 4 channels, not finite or far
        outside [0, 1] (unchecked under a trace); a number is no integer of at least 1; or the
        learning rate is not positive and finite.
    """
    images = _check_images(images)
    for name, value in (("num_gaussians", num_gaussians), ("num_steps", num_steps)):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise ValueError(f"{name}: expected an integer, got {value!r}")
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not (isinstance(learning_rate, numbers.Real) and 0 < learning_rate < math.inf):
        raise ValueError(f"learning_rate: expected a positive, finite float, got {learning_rate!r}")
    _, height, width, channels = images.shape
    parameterization = Gaussian(height, width, channels, 1, int(num_gaussians))
    state = start(parameterization, key, images, learning_rate)
    state, _ = run(parameterization, state, images, learning_rate, int(num_steps))
    return state.params, psnr(parameterization, state.params, images)


def _check_images(images: Any) -> Float[Array, "m h w c"]:
    """Returns the images as float32; values are not checked under a trace."""
    images = jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images: expected floating point in [0, 1], got {images.dtype}; convert 8-bit images "
            "with images.astype('float32') / 255"
        )
    if images.ndim != 4 or not 1 <= images.shape[-1] <= MAX_CHANNELS or 0 in images.shape:
        raise ValueError(
            f"images: expected shape [M, H, W, C], channels last, with 1 to {MAX_CHANNELS} "
            f"channels, got {images.shape}"
        )
    if not isinstance(images, jax.core.Tracer):
        known = np.asarray(images, np.float32)
        least, most = known.min(), known.max()  # NaN if any is
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ValueError("images: expected finite numbers, got NaN or infinity among them")
        if least < IMAGE_RANGE[0] or most > IMAGE_RANGE[1]:
            raise ValueError(
                f"images: expected values in [0, 1], got {least:g} to {most:g}; rescale them "
                "(8-bit images: / 255)"
            )
    return images.astype(jnp.float32)
